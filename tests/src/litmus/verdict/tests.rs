//! The models against what the literature says of each shape's outcome in question.

use super::*;
use crate::litmus::outcome::{Seen, all_whole};
use crate::litmus::program::{Access, Family, Fence, Flavour};
use crate::litmus::shape::Shape;

/// The outcome that a shape is about: registers, then finals.
const IN_QUESTION: [(&str, &[u8]); 15] = [
    ("SB", &[0, 0]),
    ("MP", &[1, 0]),
    ("LB", &[1, 1]),
    ("S", &[1, 2]),
    ("R", &[0, 2]),
    ("2+2W", &[1, 1]),
    ("CoRR", &[1, 0]),
    ("CoWW", &[1]),
    ("CoRW", &[2, 2]),
    ("CoWR", &[2, 1]),
    ("WRC", &[1, 1, 0]),
    ("RWC", &[1, 0, 0]),
    ("WWC", &[2, 1, 2]),
    ("ISA2", &[1, 1, 0]),
    ("IRIW", &[1, 0, 1, 0]),
];

fn flavour(access: Access, fence: Fence) -> Flavour {
    Flavour { access, fence }
}

/// The shapes whose outcome in question the Rust memory model forbids.
fn forbidden_by_rust(flavour: Flavour) -> Vec<&'static str> {
    in_question(flavour, |verdict| verdict.rust == Rust::Forbidden)
}

fn in_question(flavour: Flavour, is_so: impl Fn(Verdict) -> bool) -> Vec<&'static str> {
    let verdict_of = |name: &str, values: &[u8]| {
        let shape = Shape::named(name).expect("there is such a shape");
        let outcome = Outcome::whole(values.iter().copied());
        Judge::new(&Program::new(shape, flavour), false).judge(outcome)
    };
    let found = IN_QUESTION.iter().filter(|(name, values)| is_so(verdict_of(name, values)));
    found.map(|(name, _)| *name).collect()
}

const COHERENCE: [&str; 4] = ["CoRR", "CoWW", "CoRW", "CoWR"];

#[test]
fn relaxed_accesses_are_coherent_and_no_more() {
    assert_eq!(forbidden_by_rust(flavour(Access::Relaxed, Fence::None)), COHERENCE);
}

#[test]
fn acquire_and_release_order_what_follows_from_what() {
    let forbidden = ["MP", "LB", "S", "CoRR", "CoWW", "CoRW", "CoWR", "WRC", "WWC", "ISA2"];
    assert_eq!(forbidden_by_rust(flavour(Access::AcqRel, Fence::None)), forbidden);
    // The first store of WRC and WWC has no fence before it, and needs none.
    assert_eq!(forbidden_by_rust(flavour(Access::Relaxed, Fence::AcqRel)), forbidden);
}

#[test]
fn sequentially_consistent_accesses_and_fences_forbid_all() {
    let all = IN_QUESTION.map(|(name, _)| name);
    assert_eq!(forbidden_by_rust(flavour(Access::SeqCst, Fence::None)), all);
    // With the fences of C++20, as opposed to those of C++11, even relaxed accesses of IRIW and RWC.
    assert_eq!(forbidden_by_rust(flavour(Access::Relaxed, Fence::SeqCst)), all);
}

#[test]
fn plain_accesses_race_in_every_shape() {
    for family in Family::all() {
        for fence in [Fence::None, Fence::SeqCst] {
            let program = Program::new(family.shape, flavour(Access::Plain, fence));
            assert_eq!(rust_model::allowed(&program), Allowed::Anything, "{}", family.name());
        }
    }
}

#[test]
fn x86_delays_stores_and_nothing_else() {
    for access in [Access::Plain, Access::Relaxed, Access::AcqRel] {
        let weak = in_question(flavour(access, Fence::None), |verdict| verdict.x86 == Hardware::Weak);
        assert_eq!(weak, ["SB", "R", "RWC"], "{access:?}");
        let allowed =
            in_question(flavour(access, Fence::None), |verdict| verdict.x86 == Hardware::Interleaving);
        assert!(allowed.is_empty(), "{access:?}");
    }
    for flavour in [flavour(Access::SeqCst, Fence::None), flavour(Access::Plain, Fence::SeqCst)] {
        assert!(in_question(flavour, |verdict| verdict.x86 != Hardware::Forbidden).is_empty(), "{flavour}");
    }
}

/// Interleavings ⊆ x86 ⊆ Rust: orderings compile to what they promise, and both models know the same programs.
#[test]
fn each_model_allows_what_a_stronger_one_does() {
    for family in Family::all() {
        for &flavour in family.flavours() {
            let judge = Judge::new(&Program::new(family.shape, flavour), false);
            assert!(judge.interleavings.is_subset(&judge.x86), "{} {flavour}", family.name());
            if let Allowed::Outcomes(rust) = &judge.rust {
                let only_x86: Vec<_> = judge.x86.difference(rust).collect();
                assert!(only_x86.is_empty(), "{} {flavour}: {only_x86:?}", family.name());
            }
        }
    }
}

/// SC-DRF's other half: where everything is `SeqCst`, the two models agree with interleaving, outcome by outcome.
#[test]
fn sequentially_consistent_programs_are_interleavings() {
    for family in Family::all().filter(|family| !family.fenced) {
        let program = Program::new(family.shape, flavour(Access::SeqCst, Fence::None));
        let judge = Judge::new(&program, false);
        for outcome in all_whole(&family.shape) {
            let verdict = judge.judge(outcome);
            let expected = judge.interleavings.contains(&outcome);
            assert_eq!(verdict.rust == Rust::Allowed, expected, "{} {outcome:?}", family.name());
            assert_eq!(verdict.x86 == Hardware::Interleaving, expected, "{} {outcome:?}", family.name());
        }
    }
}

#[test]
fn torn_values_are_for_straddling_variables_only() {
    let shape = Shape::named("CoRR").expect("there is such a shape");
    let program = Program::new(shape, flavour(Access::Plain, Fence::None));
    let torn = Outcome::of([Seen { low: 1, high: 0 }, Seen::whole(1)]);
    assert!(Judge::new(&program, false).judge(torn).is_forbidden());
    let straddling = Judge::new(&program, true);
    assert!(!straddling.judge(torn).is_forbidden());
    // Each half is coherent by itself.
    let half_back = Outcome::of([Seen { low: 1, high: 0 }, Seen { low: 0, high: 1 }]);
    assert!(straddling.judge(half_back).is_forbidden());
}

#[test]
fn the_sequential_judge_forbids_weak_outcomes() {
    let shape = Shape::named("SB").expect("there is such a shape");
    let program = Program::new(shape, flavour(Access::Plain, Fence::None));
    let both_miss = Outcome::whole([0, 0]);
    assert!(Judge::new(&program, false).judge(both_miss).is_weak());
    assert!(Judge::sequential(&program, false).judge(both_miss).is_forbidden());
}
