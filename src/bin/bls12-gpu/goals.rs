//! What rows of the report are to reach on an NVIDIA H200, and what others reach. Of other devices nothing is known.

/// Whether a device's name is that of one. (There is a GH200, too.)
fn is_known(device: &str) -> bool {
    device.split_whitespace().any(|word| word == "H200")
}

/// Rows that are to be no less than this, in their units.
const AT_LEAST: [(&str, f64); 26] = [
    ("fq_add_pageable_gelems", 0.22),
    ("fq_add_pinned_gelems", 0.5),
    ("chain_100_efficiency", 0.9),
    ("fq_add_stream", 30.0),
    ("fq_sub_stream", 30.0),
    ("fq_neg_stream", 30.0),
    ("fq_double_stream", 30.0),
    ("fq_add_roof", 0.98),
    ("fq_mul_stream", 26.0),
    ("fq_mul_chain", 32.0),
    ("fq_sqr_chain", 38.0),
    ("fr_add_stream", 45.0),
    ("fr_mul_stream", 45.0),
    ("fr_mul_chain", 72.0),
    ("fr_sqr_chain", 82.0),
    ("fq_mul2_ratio", 1.3),
    ("fq_pow381_stream", 0.06),
    ("fr_sum_24", 128.0),
    ("fr_product_24", 60.0),
    ("fq_batch_inverse_22", 5.0),
    ("fr_batch_inverse_22", 12.0),
    ("fr_prefix_product_24", 12.0),
    ("plonk_gate_fusion", 3.0),
    ("fused_vs_hand", 0.95),
    ("fr_gemm_1024_share", 0.6),
    ("r1cs_spmv_share", 0.6),
];

/// Rows that are to be no more.
const AT_MOST: [(&str, f64); 13] = [
    ("add_64_host_us", 20.0),
    ("add_64k_host_us", 250.0),
    ("add_64_resident_us", 14.0),
    ("cpu_per_dispatch_us", 1.5),
    ("verify_all_overlap", 1.15),
    ("warm_start_ms", 10.0),
    ("barriers_per_dispatch", 0.5),
    ("descriptor_updates_per_dispatch", 0.0),
    ("steady_allocations", 0.0),
    ("pipeline_worst_ms", 300.0),
    ("pipeline_worst_algebra_ms", 300.0),
    ("spirv_bytes", (4 << 20) as f64),
    ("fr_poly_eval_22_ms", 0.1),
];

/// The best of others in rows' units, and whose it is: unless another GPU is named, built with nvcc 13.0 for sm_90 and measured, every output
/// checked, on an H200 on 2026-11-20. They are compared with nothing else.
const PEERS: [(&str, f64, &str); 20] = [
    ("add_64_host_us", 29.0, "open-icicle v4, memory pooled"),
    ("add_64k_host_us", 536.0, "open-icicle v4"),
    ("add_64_resident_us", 10.4, "a CUDA launch"),
    ("fq_add_pageable_gelems", 0.087, "open-icicle v4, in Fr"),
    ("fq_add_pinned_gelems", 0.57, "open-icicle v4, in Fr"),
    ("fq_add_stream", 28.1, "Yrrid"),
    ("fq_mul_stream", 23.8, "Yrrid"),
    ("fq_mul_chain", 29.0, "ICICLE 2.8"),
    ("fq_sqr_chain", 35.0, "Yrrid"),
    ("fr_add_stream", 43.6, "sppark 0.1.16"),
    ("fr_mul_stream", 45.4, "open-icicle v4"),
    ("fr_mul_chain", 64.8, "ICICLE 2.8"),
    ("fr_sqr_chain", 73.9, "sppark 0.1.16"),
    ("fr_sum_stream", 123.0, "open-icicle v4"),
    // An inverse, which takes a power of 381 bits here and a greatest common divisor there.
    ("fq_pow381_stream", 0.059, "open-icicle v4"),
    ("fr_sum_24", 123.0, "open-icicle v4"),
    ("fr_product_24", 44.0, "open-icicle v4"),
    ("fq_batch_inverse_22", 0.059, "open-icicle v4, an inverse in each thread"),
    (
        "fr_batch_inverse_22",
        0.129,
        "open-icicle v4, an inverse in each thread; 5.4 by a special-purpose prover on an A6000 Ada",
    ),
    ("fr_poly_eval_22_ms", 0.16, "a special-purpose prover on an A6000 Ada"),
];

/// What a row is to reach.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) goal: f64,
    /// Whether less is better.
    pub(crate) less: bool,
}

impl Goal {
    /// Of a row by its name, on a device.
    pub(crate) fn of(name: &str, device: &str) -> Option<Self> {
        if !is_known(device) {
            return None;
        }
        let find = |goals: &[(&str, f64)], less| {
            let found = goals.iter().find(|goal| goal.0 == name);
            found.map(|&(_, goal)| Self { goal, less })
        };
        find(&AT_LEAST, false).or_else(|| find(&AT_MOST, true))
    }

    /// In words, which say which side of it is the better one, and whether a value is on the other one.
    pub(crate) fn text(&self, value: f64) -> String {
        let met = if self.less { value <= self.goal } else { value >= self.goal };
        format!("{} {}{}", if self.less { "at most" } else { "at least" }, self.goal, if met { "" } else { ", not met" })
    }
}

/// A row's goal on a device, and the best of others, in words.
pub(crate) fn texts(name: &str, value: f64, device: &str) -> [String; 2] {
    let goal = Goal::of(name, device).map(|goal| goal.text(value));
    let peer = peer(name, device).map(|(best, who)| format!("{best} ({who})"));
    [goal, peer].map(|text| text.unwrap_or_else(|| "-".into()))
}

/// The best that others do in a row on a device, and who.
pub(crate) fn peer(name: &str, device: &str) -> Option<(f64, &'static str)> {
    let known = if is_known(device) { &PEERS[..] } else { &[] };
    known.iter().find(|peer| peer.0 == name).map(|&(_, best, who)| (best, who))
}
