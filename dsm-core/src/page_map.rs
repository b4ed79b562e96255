//! A map from pages to what is known of each, for the hundreds of thousands that a node may know.
//!
//! Pages come in runs, and after a change of the view every one that is known is looked at. So what is known of
//! neighbours lies side by side: pages are taken by groups of [`GROUP`], of each of which a word says which pages it has,
//! and a vector what is known of those, in ascending order. A look at all of them is a walk through memory, where one
//! through a tree of single pages misses the cache at every other page; to find one page costs no more than there.

use crate::ids::PageId;
use core::mem;
use core::ops::Range;
use std::collections::{BTreeMap, btree_map};

/// Pages of a group: as many as a word has bits.
const GROUP: u64 = u64::BITS as u64;

/// A map from pages to what is known of each, in the order of the pages.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PageMap<V> {
    /// By their number; none is empty.
    groups: BTreeMap<u64, Group<V>>,
}

/// What is known of the pages of one group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Group<V> {
    /// Of which something is known.
    known: u64,
    /// One for every bit that is set in `known`, from the lowest on.
    values: Vec<V>,
}

impl<V> Default for PageMap<V> {
    fn default() -> PageMap<V> {
        PageMap { groups: BTreeMap::new() }
    }
}

impl<V> PageMap<V> {
    /// What is known of `page`.
    pub fn get(&self, page: PageId) -> Option<&V> {
        let group = self.groups.get(&group_of(page))?;
        group.values.get(group.place_of(page)?)
    }

    /// As [`PageMap::get`], to be changed.
    pub fn get_mut(&mut self, page: PageId) -> Option<&mut V> {
        let group = self.groups.get_mut(&group_of(page))?;
        let place = group.place_of(page)?;
        group.values.get_mut(place)
    }

    /// What is known of `page`, which is `new` if nothing was.
    pub fn get_or_insert_with(&mut self, page: PageId, new: impl FnOnce() -> V) -> &mut V {
        let empty = || Group { known: 0, values: Vec::new() };
        let group = self.groups.entry(group_of(page)).or_insert_with(empty);
        let place = group.places_below(page);
        if group.place_of(page).is_none() {
            group.known |= bit_of(page);
            group.values.insert(place, new());
        }
        &mut group.values[place]
    }

    /// What was known of `page`, of which nothing is known from now on.
    pub fn remove(&mut self, page: PageId) -> Option<V> {
        let btree_map::Entry::Occupied(mut entry) = self.groups.entry(group_of(page)) else { return None };
        let group = entry.get_mut();
        let place = group.place_of(page)?;
        group.known &= !bit_of(page);
        let value = group.values.remove(place);
        if group.values.is_empty() {
            entry.remove();
        }
        Some(value)
    }

    /// Forgets all of `pages`.
    pub fn remove_range(&mut self, pages: Range<u64>) {
        self.retain_in(pages, |_, _| false);
    }

    /// Forgets the pages of which `keep` does not hold.
    pub fn retain(&mut self, keep: impl FnMut(PageId, &V) -> bool) {
        self.retain_in(0..u64::MAX, keep);
    }

    fn retain_in(&mut self, pages: Range<u64>, mut keep: impl FnMut(PageId, &V) -> bool) {
        let mut emptied = Vec::new();
        for (&number, group) in self.groups.range_mut(groups_of(&pages)) {
            let mut ids = Bits(group.known);
            let mut known = group.known;
            group.values.retain(|value| {
                let Some(bit) = ids.next() else { return false };
                let page = number * GROUP + bit;
                let stays = !pages.contains(&page) || keep(PageId(page), value);
                if !stays {
                    known &= !(1 << bit);
                }
                stays
            });
            group.known = known;
            if known == 0 {
                emptied.push(number);
            }
        }
        for number in emptied {
            self.groups.remove(&number);
        }
    }

    /// Everything that is known, by page.
    pub fn iter(&self) -> impl Iterator<Item = (PageId, &V)> {
        self.groups.iter().flat_map(|(number, group)| pages_of(*number, group.known).zip(&group.values))
    }

    /// As [`PageMap::iter`], to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (PageId, &mut V)> {
        self.groups
            .iter_mut()
            .flat_map(|(number, group)| pages_of(*number, group.known).zip(&mut group.values))
    }

    /// What is known of those of `pages` of which something is, to be changed.
    pub fn range_mut(&mut self, pages: Range<u64>) -> impl Iterator<Item = (PageId, &mut V)> {
        let groups = self.groups.range_mut(groups_of(&pages));
        let all = groups.flat_map(|(number, group)| pages_of(*number, group.known).zip(&mut group.values));
        all.filter(move |(page, _)| pages.contains(&page.0))
    }

    /// The pages of which something is known.
    pub fn keys(&self) -> impl Iterator<Item = PageId> + '_ {
        self.groups.iter().flat_map(|(number, group)| pages_of(*number, group.known))
    }

    /// What is known of each page.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.groups.values().flat_map(|group| &group.values)
    }

    /// As [`PageMap::values`], to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.groups.values_mut().flat_map(|group| &mut group.values)
    }
}

impl<V> Group<V> {
    /// How many pages before `page` something is known of.
    fn places_below(&self, page: PageId) -> usize {
        (self.known & (bit_of(page) - 1)).count_ones() as usize
    }

    /// Where `values` has what is known of `page`.
    fn place_of(&self, page: PageId) -> Option<usize> {
        (self.known & bit_of(page) != 0).then(|| self.places_below(page))
    }
}

fn group_of(page: PageId) -> u64 {
    page.0 / GROUP
}

fn bit_of(page: PageId) -> u64 {
    1 << (page.0 % GROUP)
}

/// The groups that may have some of `pages`.
fn groups_of(pages: &Range<u64>) -> Range<u64> {
    let first = pages.start / GROUP;
    first..pages.end.div_ceil(GROUP).max(first)
}

/// The pages of group `number` whose bits are set in `known`.
fn pages_of(number: u64, known: u64) -> impl Iterator<Item = PageId> {
    Bits(known).map(move |bit| PageId(number * GROUP + bit))
}

/// The numbers of the bits that are set, from the lowest on.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let rest = self.0 & self.0.wrapping_sub(1);
        let before = mem::replace(&mut self.0, rest);
        (before != 0).then(|| before.trailing_zeros().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u32),
        Change(u64, u32),
        Remove(u64),
        RemoveRange(Range<u64>),
        ChangeRange(Range<u64>),
        KeepEven,
    }

    /// Pages near the borders of groups, and near the end of all.
    fn page() -> impl Strategy<Value = u64> {
        prop_oneof![0..200_u64, Just(u64::MAX - 1), Just(1 << 40)]
    }

    fn range() -> impl Strategy<Value = Range<u64>> {
        (page(), page()).prop_map(|(a, b)| a.min(b)..a.max(b))
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (page(), any::<u32>()).prop_map(|(page, value)| Step::Insert(page, value)),
            2 => (page(), any::<u32>()).prop_map(|(page, value)| Step::Change(page, value)),
            3 => page().prop_map(Step::Remove),
            1 => range().prop_map(Step::RemoveRange),
            1 => range().prop_map(Step::ChangeRange),
            1 => Just(Step::KeepEven),
        ]
    }

    fn take(map: &mut PageMap<u32>, model: &mut BTreeMap<u64, u32>, step: Step) {
        match step {
            Step::Insert(page, value) => {
                let here = *map.get_or_insert_with(PageId(page), || value);
                assert_eq!(here, *model.entry(page).or_insert(value));
            }
            Step::Change(page, value) => {
                let here = map.get_mut(PageId(page)).map(|it| mem::replace(it, value));
                assert_eq!(here, model.get_mut(&page).map(|it| mem::replace(it, value)));
            }
            Step::Remove(page) => assert_eq!(map.remove(PageId(page)), model.remove(&page)),
            Step::RemoveRange(pages) => {
                map.remove_range(pages.clone());
                model.retain(|page, _| !pages.contains(page));
            }
            Step::ChangeRange(pages) => {
                map.range_mut(pages.clone()).for_each(|(page, value)| *value = page.0 as u32);
                model.range_mut(pages).for_each(|(page, value)| *value = *page as u32);
            }
            Step::KeepEven => {
                map.retain(|page, value| page.0.wrapping_add((*value).into()).is_multiple_of(2));
                model.retain(|page, value| page.wrapping_add((*value).into()).is_multiple_of(2));
            }
        }
    }

    proptest! {
        /// It is an ordinary map, and how it came to have what it has makes no difference.
        #[test]
        fn is_a_map(steps in prop::collection::vec(step(), 1..200)) {
            let (mut map, mut model) = (PageMap::default(), BTreeMap::new());
            for step in steps {
                take(&mut map, &mut model, step);
                let all: Vec<_> = map.iter().map(|(page, value)| (page.0, *value)).collect();
                prop_assert_eq!(&all, &model.iter().map(|(page, value)| (*page, *value)).collect::<Vec<_>>());
                let mut again = PageMap::default();
                for (page, value) in all.into_iter().rev() {
                    again.get_or_insert_with(PageId(page), || value);
                }
                prop_assert_eq!(&again, &map);
            }
            prop_assert!(map.keys().map(|page| page.0).eq(model.keys().copied()));
            prop_assert!(map.values().eq(model.values()));
            prop_assert!(map.iter_mut().map(|(page, value)| (page.0, *value)).eq(model.iter().map(|(k, v)| (*k, *v))));
            prop_assert!(map.values_mut().map(|value| *value).eq(model.values().copied()));
        }
    }
}
