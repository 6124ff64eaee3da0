//! What rows of the report are to reach, and what others reach.

/// A row's goal and the best of others.
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    pub(crate) goal: f64,
    /// Whether less is better.
    pub(crate) less: bool,
    /// The best of others, in the row's unit, and whose it is.
    pub(crate) peer: Option<(f64, &'static str)>,
}

impl Goal {
    /// Of a row by its name.
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        GOALS.iter().find(|goal| goal.name == name)
    }

    /// In words, which say which side of it is the better one.
    pub(crate) fn text(&self) -> String {
        format!("{} {}", if self.less { "at most" } else { "at least" }, self.goal)
    }

    pub(crate) fn met(&self, value: f64) -> bool {
        if self.less { value <= self.goal } else { value >= self.goal }
    }
}

const fn goal(name: &'static str, goal: f64, peer: Option<(f64, &'static str)>) -> Goal {
    Goal { name, goal, less: false, peer }
}

/// For an H200. Others were measured on the same GPU as in `roofline.rs`, unless another is named.
const GOALS: [Goal; 10] = [
    goal("fr_sum_24", 128.0, Some((123.0, "open-icicle v4"))),
    goal("fr_product_24", 60.0, Some((44.0, "open-icicle v4"))),
    goal("fq_batch_inverse_22", 5.0, Some((0.059, "open-icicle v4, an inverse in each thread"))),
    goal(
        "fr_batch_inverse_22",
        12.0,
        Some((0.129, "open-icicle v4, an inverse in each thread; 5.4 by a special-purpose prover on an A6000 Ada")),
    ),
    goal("fr_prefix_product_24", 12.0, None),
    goal("plonk_gate_fusion", 3.0, None),
    goal("fused_vs_hand", 0.95, None),
    Goal { less: true, ..goal("fr_poly_eval_22_ms", 0.1, Some((0.16, "a special-purpose prover on an A6000 Ada"))) },
    goal("fr_gemm_1024_share", 0.6, None),
    goal("r1cs_spmv_share", 0.6, None),
];
