//! Which member of a RAID0 holds a sector of the array. Pure.
//!
//! As drivers/md/raid0.c of Linux lays it out: members of unequal size make zones, each striped over the members that
//! still have room. The two layouts differ in zones after the first (`raid0.default_layout`).

use alloc::vec::Vec;

/// A RAID0. Sizes and offsets are sectors of 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Sectors of each member's data, in the order of their roles.
    pub members: Vec<u64>,
    /// Sectors of a chunk.
    pub chunk: u64,
    /// Whether zones after the first are laid out the way of kernels 3.14 to 5.3 (`layout` 2).
    pub alternate: bool,
}

impl Geometry {
    /// The member that holds `sector` of the array, and the sector within that member's data. `None` beyond the end,
    /// or when there is no such array.
    pub fn member_of(&self, sector: u64) -> Option<(usize, u64)> {
        if self.chunk == 0 {
            return None;
        }
        let sizes: Vec<u64> = self.members.iter().map(|size| size - size % self.chunk).collect();
        let (mut zone_start, mut on_member) = (0u64, 0u64);
        loop {
            let in_zone: Vec<usize> = (0..sizes.len()).filter(|&index| sizes[index] > on_member).collect();
            let height = in_zone.iter().map(|&index| sizes[index]).min()? - on_member;
            let count = in_zone.len() as u64;
            let zone_end = zone_start.checked_add(height.checked_mul(count)?)?;
            if sector >= zone_end {
                (zone_start, on_member) = (zone_end, on_member + height);
                continue;
            }
            let within = sector - zone_start;
            let stripe = within / (self.chunk * count);
            let turn = if self.alternate { within } else { sector } / self.chunk % count;
            let member = *in_zone.get(usize::try_from(turn).ok()?)?;
            return Some((member, on_member + stripe * self.chunk + sector % self.chunk));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn two_unequal_members() {
        // Members of 3 and 5 chunks of 8 sectors: three stripes over both, then the rest of the second.
        let geometry = Geometry {
            members: [24, 43].into(),
            chunk: 8,
            alternate: false,
        };
        for (sector, place) in [
            (0, (0, 0)),
            (7, (0, 7)),
            (8, (1, 0)),
            (16, (0, 8)),
            (47, (1, 23)),
            (48, (1, 24)),
            (63, (1, 39)),
        ] {
            assert_eq!(geometry.member_of(sector), Some(place), "{sector}");
        }
        assert_eq!(geometry.member_of(64), None);
    }

    #[test]
    fn the_layouts_differ_in_the_second_zone_of_three_members() {
        // One member of one chunk, two of two: the second zone begins at the third chunk of the array.
        let original = Geometry {
            members: [8, 16, 16].into(),
            chunk: 8,
            alternate: false,
        };
        let alternate = Geometry {
            alternate: true,
            ..original.clone()
        };
        assert_eq!(original.member_of(24), Some((2, 8)));
        assert_eq!(alternate.member_of(24), Some((1, 8)));
        assert_eq!(original.member_of(16), alternate.member_of(16));
    }

    proptest! {
        #[test]
        fn every_sector_has_a_place_of_its_own(
            members in proptest::collection::vec(0u64..100, 0..5),
            chunk in 0u64..9,
            alternate in any::<bool>(),
        ) {
            let geometry = Geometry { members: members.clone(), chunk, alternate };
            let size: u64 = if chunk == 0 { 0 } else { members.iter().map(|size| size - size % chunk).sum() };
            let mut taken = BTreeSet::new();
            for sector in 0..size {
                let place = geometry.member_of(sector).unwrap();
                prop_assert!(place.1 < members[place.0]);
                prop_assert!(taken.insert(place), "{:?}", place);
            }
            prop_assert_eq!(geometry.member_of(size), None);
        }
    }
}
