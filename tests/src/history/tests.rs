//! Histories made by hand, and many small random ones on which all three answers must agree: the search's, that of
//! trying everything, and the library's.

use super::checker::outcomes;
use super::*;
use proptest::prelude::*;

type WordEntry = EntryOf<Word>;
type SequenceEntry = EntryOf<Sequence>;

fn entry<O, R>(index: u16, invoked: u64, returned: u64, operation: O, answer: R) -> Entry<O, R> {
    let thread = Thread { node: 0, index };
    Entry { thread, invoked, acted: returned, operation, returned: Some((returned, answer)) }
}

fn open<O, R>(index: u16, invoked: u64, operation: O) -> Entry<O, R> {
    Entry { thread: Thread { node: 0, index }, invoked, acted: u64::MAX, operation, returned: None }
}

fn word(entries: Vec<WordEntry>) -> History<Word> {
    History::new(Word(0), entries).expect("the entries are in order")
}

fn sequence(entries: Vec<SequenceEntry>) -> History<Sequence> {
    History::new(Sequence::unbounded(), entries).expect("the entries are in order")
}

/// All answers, which must be the same; and an order that is claimed must be one.
fn is_linearizable<S: Object>(history: &History<S>) -> bool {
    let verdict = check(history);
    let found = matches!(verdict, Verdict::Linearizable(_));
    assert_eq!(found, library_agrees(history), "the library disagrees about {history:?}");
    assert_eq!(found, !outcomes(history, 1).is_empty(), "trying everything disagrees about {history:?}");
    assert_eq!(explain(history).is_none(), found);
    if let Verdict::Linearizable(order) = verdict {
        assert_is_order(history, &order);
    }
    found
}

fn assert_is_order<S: Object>(history: &History<S>, order: &[usize]) {
    let mut at = vec![0; history.lanes.len()];
    let mut state = history.start.clone();
    let mut begun = 0;
    for &lane in order {
        let entry = &history.lanes[lane][at[lane]];
        at[lane] += 1;
        begun = begun.max(entry.invoked);
        assert!(entry.ended() >= begun, "{entry:?} had ended when one began that comes before it");
        let answer = state.invoke(&entry.operation);
        assert!(entry.returned.as_ref().is_none_or(|(_, told)| *told == answer), "{entry:?}");
    }
    let left = history.lanes.iter().zip(at).flat_map(|(lane, at)| &lane[at..]);
    assert!(left.into_iter().all(|entry| entry.returned.is_none()), "the order leaves one out that ended");
}

use SequenceAnswer as Told;
use SequenceOperation as Do;
use WordAnswer::{Differed, Done, Was};
use WordOperation::{Add, CompareExchange, Load, Store, Swap};

#[test]
fn a_counter_that_counts_is_linearizable() {
    assert!(is_linearizable(&word(vec![
        entry(0, 0, 10, Add(1), Was(1)),
        entry(1, 5, 15, Add(1), Was(0)),
        entry(2, 8, 20, Load, Was(2)),
        entry(0, 11, 30, Add(3), Was(2)),
    ])));
}

#[test]
fn a_counter_that_tells_two_the_same_is_not() {
    assert!(!is_linearizable(&word(vec![entry(0, 0, 10, Add(1), Was(0)), entry(1, 5, 15, Add(1), Was(0)),])));
}

#[test]
fn a_counter_that_goes_back_is_not() {
    let back = |from| {
        word(vec![
            entry(0, 0, 1, Add(1), Was(0)),
            entry(1, 2, 3, Load, Was(1)),
            entry(2, from, 5, Load, Was(0)),
        ])
    };
    assert!(!is_linearizable(&back(4)));
    assert!(is_linearizable(&back(1)), "what only touches overlaps");
}

#[test]
fn a_register_may_choose_the_order_of_stores_that_overlap_but_not_change_its_mind() {
    let reads = |first, second| {
        word(vec![
            entry(0, 0, 100, Store(1), Done),
            entry(1, 0, 100, Store(2), Done),
            entry(2, 10, 20, Load, Was(first)),
            entry(2, 30, 40, Load, Was(second)),
            entry(3, 50, 60, Load, Was(first)),
        ])
    };
    assert!(is_linearizable(&reads(2, 2)));
    assert!(is_linearizable(&reads(1, 1)));
    assert!(!is_linearizable(&reads(2, 1)));
}

#[test]
fn a_register_that_forgets_a_store_is_not_linearizable() {
    let history = word(vec![
        entry(0, 0, 10, Store(1001), Done),
        entry(0, 20, 30, Store(1002), Done),
        entry(1, 40, 50, Load, Was(1001)),
    ]);
    assert!(!is_linearizable(&history));
    let text = explain(&history).expect("it is not linearizable").text;
    assert!(text.starts_with("load of n0.1 answered \"was 1001\""), "{text}");
    assert!(text.contains("may have been: 1002\n"), "{text}");
    assert!(text.lines().any(|line| line.starts_with('>') && line.contains("load")), "{text}");
}

#[test]
fn exchanges_are_atomic() {
    let both = |second| {
        word(vec![
            entry(0, 0, 10, CompareExchange { expected: 0, new: 1 }, Was(0)),
            entry(1, 0, 10, CompareExchange { expected: 0, new: 2 }, second),
        ])
    };
    assert!(is_linearizable(&both(Differed(1))));
    assert!(!is_linearizable(&both(Was(0))));
    assert!(!is_linearizable(&both(Differed(3))));
    let swaps = |third| {
        word(vec![
            entry(0, 0, 10, Swap(1), Was(0)),
            entry(1, 0, 10, Swap(2), Was(third)),
            entry(2, 20, 30, Load, Was(2)),
        ])
    };
    assert!(is_linearizable(&swaps(1)));
    assert!(!is_linearizable(&swaps(0)));
}

#[test]
fn what_never_ended_may_have_taken_effect_or_not() {
    let seen = |value| word(vec![open(0, 0, Store(1)), entry(1, 10, 20, Load, Was(value))]);
    assert!(is_linearizable(&seen(0)));
    assert!(is_linearizable(&seen(1)));
    assert!(!is_linearizable(&seen(2)));
    let then = |second| {
        word(vec![open(0, 0, Store(1)), entry(1, 10, 20, Load, Was(1)), entry(1, 30, 40, Load, Was(second))])
    };
    assert!(is_linearizable(&then(1)));
    assert!(!is_linearizable(&then(0)));
    let early = word(vec![entry(1, 10, 20, Load, Was(1)), open(0, 30, Store(1))]);
    assert!(!is_linearizable(&early), "it had not begun");
}

#[test]
fn a_queue_keeps_its_order() {
    let pops = |first, second| {
        sequence(vec![
            entry(0, 0, 10, Do::PushBack(1), Told::Done),
            entry(0, 20, 30, Do::PushBack(2), Told::Done),
            entry(1, 40, 50, Do::PopFront, Told::Element(first)),
            entry(2, 45, 55, Do::PopFront, Told::Element(second)),
        ])
    };
    assert!(is_linearizable(&pops(Some(1), Some(2))));
    assert!(is_linearizable(&pops(Some(2), Some(1))), "the two overlap");
    assert!(!is_linearizable(&pops(Some(1), Some(1))), "an element was taken twice");
    assert!(!is_linearizable(&pops(Some(1), None)), "an element was lost");
    assert!(!is_linearizable(&pops(Some(1), Some(3))), "an element was made up");
    let late = sequence(vec![
        entry(0, 0, 10, Do::PushBack(1), Told::Done),
        entry(0, 20, 30, Do::PushBack(2), Told::Done),
        entry(1, 40, 50, Do::PopFront, Told::Element(Some(2))),
        entry(2, 60, 70, Do::PopFront, Told::Element(Some(1))),
    ]);
    assert!(!is_linearizable(&late), "the second was taken first");
}

#[test]
fn a_list_keeps_all_that_is_in_it() {
    let told = |length, elements: &[u64]| {
        sequence(vec![
            entry(0, 0, 10, Do::PushBack(1), Told::Done),
            entry(1, 5, 15, Do::PushFront(2), Told::Done),
            entry(0, 20, 30, Do::Insert(1, 3), Told::Done),
            entry(2, 12, 40, Do::Length, Told::Length(length)),
            entry(1, 35, 45, Do::Elements, Told::Elements(elements.to_vec())),
            entry(0, 50, 60, Do::Remove(2), Told::Element(Some(1))),
            entry(1, 70, 80, Do::Rotate, Told::Element(Some(2))),
            entry(2, 90, 95, Do::PopBack, Told::Element(Some(2))),
        ])
    };
    assert!(is_linearizable(&told(3, &[2, 3, 1])));
    assert!(is_linearizable(&told(1, &[2, 3, 1])));
    assert!(!is_linearizable(&told(0, &[2, 3, 1])), "one push had ended");
    assert!(!is_linearizable(&told(3, &[2, 1, 3])), "they stand in another order");
    assert!(!is_linearizable(&told(3, &[2, 1])), "one is missing");
}

#[test]
fn refusals_need_a_reason() {
    let full = |capacity, index| {
        let entries = vec![
            entry(0, 0, 10, Do::PushBack(1), Told::Done),
            entry(0, 20, 30, Do::Insert(index, 2), Told::Refused),
        ];
        History::new(Sequence::bounded(capacity), entries).expect("the entries are in order")
    };
    assert!(is_linearizable(&full(1, 0)));
    assert!(is_linearizable(&full(9, 2)));
    assert!(!is_linearizable(&full(9, 1)));
    assert!(!is_linearizable(&sequence(vec![entry(0, 0, 10, Do::Elements, Told::Broken)])));
}

#[test]
fn threads_do_one_thing_after_the_other() {
    let twice = vec![entry(0, 0, 10, Load, Was(0)), entry(0, 10, 20, Load, Was(0))];
    assert!(History::new(Word(0), twice).is_err());
    let backwards = vec![entry(0, 5, 4, Load, Was(0))];
    assert!(History::new(Word(0), backwards).is_err());
    let after_the_end = vec![open(0, 0, Load), entry(0, 10, 20, Load, Was(0))];
    assert!(History::new(Word(0), after_the_end).is_err());
}

#[test]
fn overlaps_are_counted() {
    let history = word(vec![
        entry(0, 0, 10, Load, Was(0)),
        entry(1, 10, 20, Load, Was(0)),
        entry(0, 21, 30, Load, Was(0)),
        open(2, 40, Load),
    ]);
    assert_eq!((history.len(), history.overlapping()), (4, 2));
}

/// Long enough that a search without memory would never end, and short enough for one with it.
#[test]
fn long_histories_are_decided() {
    const ROUNDS: u64 = 400;
    const THREADS: u16 = 6;
    let mut entries = Vec::new();
    for round in 0..ROUNDS {
        for index in 0..THREADS {
            let value = 1000 * (u64::from(index) + 1) + round;
            entries.push(entry(index, 100 * round, 100 * round + 90, Store(value), Done));
        }
    }
    entries.push(entry(THREADS, 100 * ROUNDS, 100 * ROUNDS + 1, Load, Was(1000 + ROUNDS - 1)));
    let legal = word(entries.clone());
    assert!(matches!(check(&legal), Verdict::Linearizable(_)));
    // Nobody stored it: every order must be given up.
    entries.pop();
    entries.push(entry(THREADS, 100 * ROUNDS, 100 * ROUNDS + 1, Load, Was(7)));
    let illegal = word(entries);
    assert_eq!(check(&illegal), Verdict::Violated);
    let why = explain(&illegal).expect("it is not linearizable");
    assert!(why.text.starts_with("load of") && why.at == 100 * ROUNDS + 1, "{why:?}");
}

/// What a random history is made of: a thread, an operation, how long to wait before it, and how long it takes.
type Draft<O> = (u16, O, u64, u64);

/// A history of an object that behaves; the answer of one operation is then spoiled, which may or may not be noticed.
fn random_history<S: Object>(
    start: &S,
    drafts: &[Draft<S::Op>],
    spoil: Option<(usize, S::Ret)>,
    unended: Option<usize>,
) -> History<S> {
    let mut state = start.clone();
    let mut free = [0; 4];
    let mut entries = Vec::new();
    for (now, (index, operation, early, late)) in drafts.iter().enumerate() {
        // Each takes effect at its own instant, and begins some time before that.
        let now = 10 * (now as u64 + 1);
        let invoked = now.saturating_sub(*early).max(free[usize::from(*index)]);
        if invoked > now {
            continue;
        }
        let answer = state.invoke(operation);
        let honest = entry(*index, invoked, now + late, operation.clone(), answer);
        // Half of the hints are right, half are not.
        entries.push(if late % 2 == 0 { Entry { acted: now, ..honest } } else { honest });
        free[usize::from(*index)] = now + late + 1;
    }
    if let Some((at, answer)) = spoil
        && let Some(entry) = entries.get_mut(at)
        && let Some(returned) = &mut entry.returned
    {
        returned.1 = answer;
    }
    if let Some(last) =
        unended.and_then(|index| entries.iter_mut().rfind(|entry| usize::from(entry.thread.index) == index))
    {
        last.returned = None;
    }
    History::new(start.clone(), entries).expect("a thread does one thing after the other")
}

fn word_operation() -> impl Strategy<Value = WordOperation> {
    prop_oneof![
        Just(Load),
        (1..4_u64).prop_map(Store),
        (1..4_u64).prop_map(Swap),
        (1..3_u64).prop_map(Add),
        (0..4_u64, 1..4_u64).prop_map(|(expected, new)| CompareExchange { expected, new }),
    ]
}

fn sequence_operation() -> impl Strategy<Value = SequenceOperation> {
    prop_oneof![
        (1..9_u64).prop_map(Do::PushBack),
        (1..9_u64).prop_map(Do::PushFront),
        Just(Do::PopFront),
        Just(Do::PopBack),
        (0..3_usize, 1..9_u64).prop_map(|(index, value)| Do::Insert(index, value)),
        (0..3_usize).prop_map(Do::Remove),
        Just(Do::Rotate),
        Just(Do::Length),
        Just(Do::Elements),
    ]
}

/// As many drafts as the library can be asked about, by four threads, with windows that overlap a lot.
fn drafts<O: Clone + Debug>(operation: impl Strategy<Value = O>) -> impl Strategy<Value = Vec<Draft<O>>> {
    prop::collection::vec((0..4_u16, operation, 0..40_u64, 0..40_u64), 1..LIBRARY_OPERATIONS_MAX)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_agree_about_words(
        drafts in drafts(word_operation()),
        spoil in prop::option::of((0..10_usize, (0..6_u64).prop_map(Was))),
        unended in prop::option::of(0..4_usize),
    ) {
        let honest = spoil.is_none();
        let found = is_linearizable(&random_history(&Word(0), &drafts, spoil, unended));
        prop_assert!(found || !honest, "a history that behaves was refused");
    }

    #[test]
    fn all_agree_about_sequences(
        drafts in drafts(sequence_operation()),
        spoil in prop::option::of((0..10_usize, prop::option::of(1..9_u64).prop_map(Told::Element))),
        unended in prop::option::of(0..4_usize),
        capacity in 1..6_usize,
    ) {
        let honest = spoil.is_none();
        let found = is_linearizable(&random_history(&Sequence::bounded(capacity), &drafts, spoil, unended));
        prop_assert!(found || !honest, "a history that behaves was refused");
    }
}
