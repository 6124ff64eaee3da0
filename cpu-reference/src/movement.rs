//! Movements of elements: `limbs` limbs each, of whatever field.

use rayon::prelude::*;

/// Elements that are worth handing to another thread.
const PIECE: usize = 1024;

/// Element i of `to` becomes element `source(i)` of `from`.
pub fn gather(limbs: usize, from: &[u64], to: &mut [u64], source: impl Fn(usize) -> usize + Sync) {
    let elements = to.par_chunks_exact_mut(limbs).with_min_len(PIECE).enumerate();
    elements.for_each(|(i, element)| match element_of(limbs, from, source(i)) {
        Some(from) => element.copy_from_slice(from),
        None => element.fill(0),
    });
}

/// Element `places[i]` of `to`, if there is one, becomes element i of `from`.
pub fn scatter(limbs: usize, from: &[u64], to: &mut [u64], places: &[u32]) {
    for (element, &place) in from.chunks_exact(limbs).zip(places) {
        let start = (place as usize).saturating_mul(limbs);
        if let Some(to) = to.get_mut(start..start.saturating_add(limbs)) {
            to.copy_from_slice(element);
        }
    }
}

/// The elements of `from` whose flags are not zero come to the front of `to`, which is not written behind them; how many they are.
pub fn compact(limbs: usize, from: &[u64], flags: &[u32], to: &mut [u64]) -> usize {
    let kept = from.chunks_exact(limbs).zip(flags).filter(|(_, flag)| **flag != 0);
    kept.zip(to.chunks_exact_mut(limbs)).map(|((element, _), to)| to.copy_from_slice(element)).count()
}

fn element_of(limbs: usize, from: &[u64], index: usize) -> Option<&[u64]> {
    let start = index.checked_mul(limbs)?;
    from.get(start..start.checked_add(limbs)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_go_where_they_should() {
        let from: Vec<u64> = (0..5000).collect();
        let mut to = vec![0; 4000];
        gather(2, &from, &mut to, |i| 2499 - i);
        assert_eq!((to[..2].to_vec(), to[3998..].to_vec()), (vec![4998, 4999], vec![1000, 1001]));
        scatter(2, &from[..4], &mut to, &[3, 0]);
        // As a device could say that there are.
        scatter(2, &from[..4], &mut to, &[2000, u32::MAX]);
        let mut nowhere = [7; 4];
        gather(2, &from, &mut nowhere, |i| [usize::MAX, 2500][i]);
        assert_eq!(nowhere, [0; 4]);
        assert_eq!(to[..8], [2, 3, 4996, 4997, 4994, 4995, 0, 1]);
        assert_eq!(compact(2, &from[..8], &[0, 1, 0, 7], &mut to), 2);
        assert_eq!(to[..6], [2, 3, 6, 7, 4994, 4995]);
    }
}
