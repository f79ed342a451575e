//! Who gets the room for matched maps, of which the kernel side has only so much.

use std::collections::BTreeSet;

/// Gives each probe those of the maps that it wants for which there is room, in the order of `wanted`. A map that several
/// want takes room once.
///
/// The probe that wants fewest comes first, so that one that selects every map of a host takes nothing from one that names
/// its maps. Of a probe's maps those come first that are measured already, so that figures go on, and then the oldest.
pub(super) fn share(
    wanted: Vec<BTreeSet<u32>>,
    measured: impl Fn(u32) -> bool,
    room: usize,
) -> Vec<BTreeSet<u32>> {
    // As good as always all fit, and no sum of lengths is less than what they take together.
    if wanted.iter().map(BTreeSet::len).sum::<usize>() <= room {
        return wanted;
    }
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|it| wanted[*it].len());
    let mut taken = BTreeSet::new();
    for probe in order {
        let (first, then): (Vec<u32>, Vec<u32>) =
            wanted[probe].iter().partition(|it| measured(**it));
        for id in first.into_iter().chain(then) {
            if taken.len() < room {
                taken.insert(id);
            }
        }
    }
    let fits = |ids: BTreeSet<u32>| ids.intersection(&taken).copied().collect();
    wanted.into_iter().map(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u32]) -> BTreeSet<u32> {
        ids.iter().copied().collect()
    }

    #[test]
    fn what_fits_is_given_to_everyone() {
        let wanted = vec![set(&[1, 2, 3]), set(&[]), set(&[4])];
        assert_eq!(share(wanted.clone(), |_| false, 4), wanted);
    }

    #[test]
    fn a_map_that_several_want_takes_room_once() {
        let wanted = vec![set(&[1, 2, 3]), set(&[1, 2, 3]), set(&[2, 4])];
        assert_eq!(share(wanted.clone(), |_| false, 4), wanted);
    }

    #[test]
    fn who_wants_everything_takes_nothing_from_who_names_a_few() {
        let all = set(&[1, 2, 3, 4, 5, 6]);
        let given = share(vec![all, set(&[6])], |_| false, 3);
        assert_eq!(given, [set(&[1, 2, 6]), set(&[6])]);
    }

    #[test]
    fn what_is_measured_goes_on_and_then_the_oldest_come() {
        let given = share(vec![set(&[1, 2, 3, 4, 5])], |id| [3, 5].contains(&id), 3);
        assert_eq!(given, [set(&[1, 3, 5])]);
    }
}
