//! The list over the arena of a domain in ordinary memory.

use super::*;
use crate::heap::spans::testing::TestRegion;
use crate::sync::{Domain, Occupied};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A list in a domain of its own, which the thread owns alone.
struct Held<T> {
    domain: Domain,
    _occupied: Occupied,
    kind: PhantomData<T>,
}

impl<T> Held<T> {
    fn new(region: &'static TestRegion, value: T) -> Held<T> {
        let domain = Domain::create(region, 0, value).unwrap();
        // SAFETY: the test has just made the domain, and never dissolves it.
        Held { domain, _occupied: unsafe { Occupied::new(domain) }, kind: PhantomData }
    }

    fn value(&mut self) -> &mut T {
        // SAFETY: the domain's value is a `T`, and `self` is the only way to it.
        unsafe { self.domain.value::<T>().as_mut() }
    }
}

/// An element that counts its drops.
struct Counted(Arc<AtomicUsize>);

// SAFETY: only for these tests, which have one process.
unsafe impl Shared for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
enum Step {
    PushBack(u32),
    PushFront(u32),
    PopBack,
    PopFront,
    Insert(usize, u32),
    Remove(usize),
    Change(u32),
    Retain(u32),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u32>().prop_map(Step::PushBack),
        6 => any::<u32>().prop_map(Step::PushFront),
        2 => Just(Step::PopBack),
        2 => Just(Step::PopFront),
        4 => (0..20_usize, any::<u32>()).prop_map(|(index, value)| Step::Insert(index, value)),
        3 => (0..20_usize).prop_map(Step::Remove),
        2 => any::<u32>().prop_map(Step::Change),
        1 => (2..5_u32).prop_map(Step::Retain),
        1 => Just(Step::Clear),
    ]
}

fn apply(step: &Step, list: &mut DsmList<u32>, model: &mut VecDeque<u32>) {
    match *step {
        Step::PushBack(value) => {
            list.push_back(value).unwrap();
            model.push_back(value);
        }
        Step::PushFront(value) => {
            list.push_front(value).unwrap();
            model.push_front(value);
        }
        Step::PopBack => assert_eq!(list.pop_back(), model.pop_back()),
        Step::PopFront => assert_eq!(list.pop_front(), model.pop_front()),
        Step::Insert(index, value) if index <= model.len() => {
            list.insert(index, value).unwrap();
            model.insert(index, value);
        }
        Step::Insert(index, value) => assert!(matches!(list.insert(index, value), Err(Error::Argument(_)))),
        Step::Remove(index) => assert_eq!(list.remove(index), model.remove(index)),
        Step::Change(by) => {
            list.iter_mut().for_each(|value| *value = value.wrapping_add(by));
            model.iter_mut().for_each(|value| *value = value.wrapping_add(by));
            assert_eq!(list.front_mut(), model.front_mut());
            assert_eq!(list.back_mut(), model.back_mut());
        }
        Step::Retain(divisor) => {
            list.retain(|value| !value.is_multiple_of(divisor));
            model.retain(|value| !value.is_multiple_of(divisor));
        }
        Step::Clear => {
            list.clear();
            model.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn it_behaves_as_a_deque(steps in prop::collection::vec(step(), 1..150)) {
        let mut held = Held::new(TestRegion::new(256), DsmList::new());
        let mut model = VecDeque::new();
        for step in &steps {
            let list = held.value();
            apply(step, list, &mut model);
            prop_assert_eq!(list.len(), model.len());
            prop_assert!(list.iter().eq(model.iter()));
            prop_assert!(list.iter().rev().eq(model.iter().rev()));
            prop_assert_eq!(list.iter().len(), model.len());
            prop_assert_eq!((list.front(), list.back()), (model.front(), model.back()));
            prop_assert_eq!(list.get(model.len() / 2), model.get(model.len() / 2));
            prop_assert_eq!(format!("{list:?}"), format!("{model:?}"));
        }
    }

    /// A walk from both ends gives each element once.
    #[test]
    fn two_ends_meet(count in 0..40_u32, turns in prop::collection::vec(any::<bool>(), 0..60)) {
        let mut held = Held::new(TestRegion::new(64), DsmList::new());
        (0..count).for_each(|value| held.value().push_back(value).unwrap());
        let mut walk = held.value().iter();
        let mut model = 0..count;
        for front in turns {
            prop_assert_eq!(walk.len(), model.len());
            if front {
                prop_assert_eq!(walk.next().copied(), model.next());
            } else {
                prop_assert_eq!(walk.next_back().copied(), model.next_back());
            }
        }
    }
}

#[test]
fn every_element_is_dropped_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let mut held = Held::new(TestRegion::new(64), DsmList::new());
    let list = held.value();
    (0..10).for_each(|_| list.push_back(Counted(drops.clone())).unwrap());
    drop(list.pop_front());
    drop(list.remove(3));
    assert_eq!(drops.load(Ordering::Relaxed), 2);
    let mut index = 0;
    list.retain(|_| {
        index += 1;
        index > 3
    });
    assert_eq!((drops.load(Ordering::Relaxed), list.len()), (5, 5));
    *list = DsmList::new();
    assert_eq!(drops.load(Ordering::Relaxed), 10);
    assert_eq!(Arc::strong_count(&drops), 1);
}

#[test]
fn lists_in_lists_free_their_elements_where_they_lie() {
    let drops = Arc::new(AtomicUsize::new(0));
    let mut held = Held::new(TestRegion::new(512), DsmList::<DsmList<Counted>>::new());
    let outer = held.value();
    for _ in 0..3 {
        outer.push_back(DsmList::new()).unwrap();
        for _ in 0..200 {
            outer.back_mut().unwrap().push_back(Counted(drops.clone())).unwrap();
        }
    }
    outer.clear();
    assert_eq!(drops.load(Ordering::Relaxed), 600);
}

#[test]
fn moved_out_of_its_lock_it_is_unusable_and_sound() {
    let drops = Arc::new(AtomicUsize::new(0));
    let mut held = Held::new(TestRegion::new(64), DsmList::new());
    held.value().push_back(Counted(drops.clone())).unwrap();
    let mut out = std::mem::take(held.value());
    assert!(matches!(out.push_back(Counted(drops.clone())), Err(Error::NotInRegion { .. })));
    assert!(catch_unwind(AssertUnwindSafe(|| out.iter().count())).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| out.pop_back())).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| out.clear())).is_err());
    assert_eq!(out.len(), 1);
    drop(out);
    assert_eq!(
        drops.load(Ordering::Relaxed),
        1,
        "only the rejected value: the element is out of reach, and leaks"
    );
    held.value().push_back(Counted(drops.clone())).unwrap();
    assert_eq!(held.value().len(), 1);
}

#[test]
fn put_back_into_its_lock_it_works_again() {
    let mut held = Held::new(TestRegion::new(64), [DsmList::new(), DsmList::new()]);
    held.value()[0].push_back(7).unwrap();
    let out = std::mem::take(&mut held.value()[0]);
    assert!(format!("{out:?}").contains("out of reach"), "{out:?}");
    held.value()[1] = out;
    held.value()[1].push_back(8).unwrap();
    assert_eq!(format!("{:?}", held.value()), "[[], [7, 8]]");
}

#[test]
fn swapped_between_two_locks_it_is_detected() {
    let region = TestRegion::new(64);
    let (mut a, mut b) = (Held::new(region, DsmList::new()), Held::new(region, DsmList::new()));
    a.value().push_back(1).unwrap();
    b.value().push_back(2).unwrap();
    std::mem::swap(a.value(), b.value());
    assert!(matches!(a.value().push_back(3), Err(Error::Moved { .. })));
    assert!(catch_unwind(AssertUnwindSafe(|| a.value().pop_front())).is_err());
    std::mem::swap(a.value(), b.value());
    assert_eq!((a.value().pop_front(), b.value().pop_front()), (Some(1), Some(2)));
    // Empty, they own nothing, and may grow wherever they are.
    std::mem::swap(a.value(), b.value());
    a.value().push_back(3).unwrap();
    assert_eq!(a.value().pop_front(), Some(3));
}

#[test]
fn exhaustion_leaves_the_list_as_it_was() {
    let mut held = Held::new(TestRegion::new(64), DsmList::new());
    let mut count = 0_u64;
    while held.value().push_back([count; 8]).is_ok() {
        count += 1;
    }
    assert!(matches!(held.value().push_front([0; 8]), Err(Error::OutOfMemory { .. })));
    assert!(held.value().iter().map(|element| element[7]).eq(0..count));
    assert_eq!(held.value().pop_back(), Some([count - 1; 8]));
    held.value().push_back([7; 8]).expect("the freed block is used again");
}
