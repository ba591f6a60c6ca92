//! Each rule of a node's policy, and the same promises as the coordinator's ledger.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::{
    Weighting,
    dp::{Plan, Request},
};

type Ledger = NodeLedger<u32>;

fn mechanism(unit: Unit, trust: Trust) -> Mechanism {
    Plan::solve(&Request {
        unit,
        trust,
        epsilon: 8.0,
        delta: 1e-5,
        rounds: 10,
        cohort: 20,
        dropout: 0.2,
        corruption: 0.05,
        dimension: 1000,
        clip: 1.0,
        bits: None,
        coordinates: Vec::new(),
        weighting: Weighting::Uniform,
        units_per_node: if unit == Unit::Node { 1 } else { 100 },
        divisor: 1000.0,
    })
    .unwrap()
    .mechanism()
    .unwrap()
}

static BUDGET: LazyLock<Budget> = LazyLock::new(|| Budget::new(8.0, 1e-5).unwrap());
static EXAMPLE: LazyLock<Mechanism> = LazyLock::new(|| mechanism(Unit::Example, Trust::Distributed));

fn policy() -> Policy {
    Policy {
        models: Some(BTreeSet::from(["cnn".to_owned()])),
        budgets: BTreeMap::from([(Unit::Example, *BUDGET)]),
        most_clip: 2.0,
        least_cohort: 10,
        corruption: 0.0,
        allow_central: false,
        allow_no_noise: false,
        allow_clear: false,
    }
}

fn offer(mechanism: &Mechanism) -> Offer<'_> {
    Offer { model: "cnn", minimum: 16, cohort: 20, masked: true, protection: Protection::Noise(mechanism) }
}

fn charge(ledger: &mut Ledger, policy: &Policy, session: u32, offer: &Offer<'_>) -> Result<bool, NodeRefusal> {
    let event = ledger.decide(policy, session, offer)?;
    if let Some(event) = &event {
        ledger.apply(event);
    }
    Ok(event.is_some())
}

#[test]
fn a_node_charges_the_worst_case_once_a_session_until_its_budget_is_spent() {
    let (mechanism, policy, mut ledger) = (EXAMPLE.clone(), policy(), Ledger::default());
    let worst = Rho::cost(mechanism.parameters().worst_case_rho(Observer::Coordinator)).unwrap();
    let mut entered = 0;
    for session in 0..20 {
        match charge(&mut ledger, &policy, session, &offer(&mechanism)) {
            Ok(true) => {
                entered += 1;
                assert_eq!(charge(&mut ledger, &policy, session, &offer(&mechanism)), Ok(false), "a lost answer costs nothing");
            }
            Err(NodeRefusal::Exceeded { asked, left, .. }) => assert!(asked == worst && left < worst),
            other => panic!("{other:?}"),
        }
    }
    // The run was planned for ten rounds of the same ε; rounding up may cost the tenth.
    assert!((9..=10).contains(&entered), "{entered}");
    assert_eq!(ledger.spent(Unit::Example).trillionths(), worst.trillionths() * entered);
    assert_eq!(ledger.spent(Unit::Node), Rho::ZERO);
}

#[test]
fn whatever_the_policy_forbids_is_declined_by_name() {
    let (example, node, central) =
        (mechanism(Unit::Example, Trust::Distributed), mechanism(Unit::Node, Trust::Distributed), mechanism(Unit::Example, Trust::Central));
    let refused = |policy: &Policy, offer: &Offer<'_>| Ledger::default().decide(policy, 1, offer).unwrap_err();
    let base = offer(&example);
    assert_eq!(refused(&policy(), &Offer { model: "other", ..base }), NodeRefusal::Model { model: "other".into() });
    assert_eq!(refused(&policy(), &Offer { masked: false, ..base }), NodeRefusal::Clear);
    assert_eq!(refused(&policy(), &Offer { protection: Protection::None, ..base }), NodeRefusal::NoNoise);
    assert_eq!(refused(&Policy { least_cohort: 17, ..policy() }, &base), NodeRefusal::Cohort { minimum: 16, least: 17 });
    assert_eq!(refused(&policy(), &Offer { minimum: 18, ..base }), NodeRefusal::Minimum { minimum: 18, noise: 16 });
    assert_eq!(refused(&policy(), &offer(&node)), NodeRefusal::Unit { unit: Unit::Node });
    assert_eq!(refused(&policy(), &offer(&central)), NodeRefusal::Central);
    let long = Mechanism::new(example.parameters().clone(), 2.5).unwrap();
    assert_eq!(refused(&policy(), &offer(&long)), NodeRefusal::Clip { clip: 2.5, most: 2.0 });
    assert!(matches!(refused(&Policy { most_clip: f64::NAN, ..policy() }, &base), NodeRefusal::Clip { .. }), "a limit that is none");
    assert_eq!(refused(&Policy { corruption: 0.9, ..policy() }, &base), NodeRefusal::Colluders { colluders: 18, minimum: 16 });
    // What is allowed is allowed, and so is the least of it.
    assert!(Ledger::default().decide(&Policy { least_cohort: 16, ..policy() }, 1, &base).is_ok());
    assert!(Ledger::default().decide(&Policy { most_clip: 1.0, ..policy() }, 1, &base).is_ok());
    let open = Policy { allow_central: true, allow_no_noise: true, allow_clear: true, models: None, ..policy() };
    assert!(Ledger::default().decide(&open, 1, &Offer { model: "other", ..base }).is_ok());
    // Found by review: a share of the noise was charged as if it were hidden by the others'.
    assert_eq!(refused(&open, &Offer { masked: false, ..base }), NodeRefusal::ShareAlone);
    assert!(Ledger::default().decide(&open, 1, &Offer { masked: false, ..offer(&central) }).is_ok());
    assert!(Ledger::default().decide(&open, 1, &offer(&central)).is_ok());
    let unprotected = Offer { protection: Protection::None, ..base };
    assert_eq!(Ledger::default().decide(&open, 1, &unprotected), Ok(Some(NodeEvent::Unprotected { session: 1 })));
}

#[test]
fn a_node_that_assumes_more_colluders_charges_more() {
    let mechanism = EXAMPLE.clone();
    let cost = |corruption| match Ledger::default().decide(&Policy { corruption, ..policy() }, 1, &offer(&mechanism)) {
        Ok(Some(NodeEvent::Charged { rho, .. })) => rho.get(),
        other => panic!("{other:?}"),
    };
    // Found by review: noise for few, a cohort of many.
    let many = Offer { cohort: 40, ..offer(&mechanism) };
    let half = Policy { corruption: 0.3, ..policy() };
    let Ok(Some(NodeEvent::Charged { rho, .. })) = Ledger::default().decide(&half, 1, &many) else { panic!("it is allowed") };
    assert!((rho.get() / cost(0.0) - 15.0 / 4.0).abs() < 1e-6, "12 of 40 may be all among the 16");
    // 15 honest shares of 16 by the coordinator's assumption, 10 by the operator's.
    assert!((cost(0.3) / cost(0.0) - 1.5).abs() < 1e-6);
}

#[test]
fn a_session_is_never_used_for_two_things() {
    let (example, policy) = (mechanism(Unit::Example, Trust::Distributed), Policy { allow_no_noise: true, ..policy() });
    let mut ledger = Ledger::default();
    charge(&mut ledger, &policy, 1, &offer(&example)).unwrap();
    let bare = Offer { protection: Protection::None, ..offer(&example) };
    assert!(matches!(charge(&mut ledger, &policy, 1, &bare), Err(NodeRefusal::SessionDiffers { .. })));
    charge(&mut ledger, &policy, 2, &bare).unwrap();
    assert_eq!(charge(&mut ledger, &policy, 2, &bare), Ok(false));
    assert!(matches!(charge(&mut ledger, &policy, 2, &offer(&example)), Err(NodeRefusal::SessionDiffers { .. })));
    let stricter = Policy { corruption: 0.3, ..policy };
    assert!(matches!(charge(&mut ledger, &stricter, 1, &offer(&example)), Err(NodeRefusal::SessionDiffers { .. })));
}

#[test]
fn a_lost_store_is_made_good_by_hand() {
    let (mechanism, policy, mut ledger) = (EXAMPLE.clone(), policy(), Ledger::default());
    ledger.apply(&NodeEvent::Restored { unit: Unit::Example, at_least: policy.budgets[&Unit::Example].rho() });
    assert!(matches!(charge(&mut ledger, &policy, 1, &offer(&mechanism)), Err(NodeRefusal::Exceeded { left: Rho::ZERO, .. })));
    ledger.apply(&NodeEvent::Restored { unit: Unit::Example, at_least: Rho::ZERO });
    assert_eq!(ledger.spent(Unit::Example), policy.budgets[&Unit::Example].rho());
}

#[test]
fn a_budget_is_spent_to_the_last_trillionth() {
    let (mechanism, policy) = (EXAMPLE.clone(), policy());
    let worst = Rho::cost(mechanism.parameters().worst_case_rho(Observer::Coordinator)).unwrap();
    let budget = policy.budgets[&Unit::Example].rho();
    for (more, fits) in [(0, true), (1, false)] {
        let mut ledger = Ledger::default();
        let at_least = budget.less(worst).plus(Rho::from_trillionths(more));
        ledger.apply(&NodeEvent::Restored { unit: Unit::Example, at_least });
        assert_eq!(charge(&mut ledger, &policy, 1, &offer(&mechanism)).is_ok(), fits);
    }
}

/// A store that holds a session twice counts the larger charge; under two units, both.
#[test]
fn a_session_that_a_store_holds_twice_is_one_charge() {
    let charged = |unit, rho| NodeEvent::Charged { session: 1, unit, rho: Rho::from_trillionths(rho) };
    let ledger = Ledger::replay(&[charged(Unit::Example, 5), charged(Unit::Example, 7), charged(Unit::Example, 6)]);
    assert_eq!(ledger.spent(Unit::Example), Rho::from_trillionths(7));
    let ledger = Ledger::replay(&[charged(Unit::Example, 5), charged(Unit::Node, 7)]);
    assert_eq!((ledger.spent(Unit::Example).trillionths(), ledger.spent(Unit::Node).trillionths()), (5, 7));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Sessions arrive again and again, and the node dies before, between and after the charge and the input: what left was charged.
    #[test]
    fn what_left_was_charged(steps in prop::collection::vec((0..12u32, 0..4u8), 1..60)) {
        let (mechanism, policy) = (EXAMPLE.clone(), policy());
        let worst = Rho::cost(mechanism.parameters().worst_case_rho(Observer::Coordinator)).unwrap();
        let (mut store, mut left, mut ledger) = (Vec::new(), BTreeSet::new(), Ledger::default());
        for (session, crash) in steps {
            let Ok(event) = ledger.decide(&policy, session, &offer(&mechanism)) else { continue };
            if crash != 1 {
                if let Some(event) = event {
                    store.push(event.clone());
                    ledger.apply(&event);
                }
                if crash != 2 {
                    left.insert(session);
                }
            }
            if crash > 0 {
                ledger = Ledger::replay(&store);
            }
            prop_assert!(ledger.spent(Unit::Example).trillionths() >= worst.trillionths() * left.len() as u64);
            prop_assert!(ledger.spent(Unit::Example) <= policy.budgets[&Unit::Example].rho());
            prop_assert_eq!(&Ledger::replay(&store), &ledger);
        }
    }
}
