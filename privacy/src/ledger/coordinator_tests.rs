//! The rules one by one, random interleavings with crashes, and OpenDP's filter as a second opinion.

use std::sync::LazyLock;

use opendp::{
    combinators::{make_fully_adaptive_composition, make_privacy_filter},
    domains::{AtomDomain, VectorDomain},
    measurements::make_gaussian,
    measures::ZeroConcentratedDivergence,
    metrics::L2Distance,
};
use proptest::prelude::*;

use super::*;

type Ledger = CoordinatorLedger<u8, u32>;

fn rho(value: u64) -> Rho {
    Rho::from_trillionths(value)
}

/// ε = 8 at δ = 1e-6 is ρ = 1.05.
fn budget() -> Budget {
    static BUDGET: LazyLock<Budget> = LazyLock::new(|| Budget::new(8.0, 1e-6).unwrap());
    *BUDGET
}

fn share(part: u64) -> Rho {
    rho(budget().rho().trillionths() * part / 100)
}

fn run(ledger: &mut Ledger, command: Command<u8, u32>) -> Result<bool, Refusal> {
    let event = ledger.decide(command)?;
    if let Some(event) = &event {
        ledger.apply(event);
    }
    Ok(event.is_some())
}

fn reserve(run: u8, percent: u64) -> Command<u8, u32> {
    Command::Reserve { run, total: share(percent) }
}

fn charge(run: u8, session: u32, percent: u64) -> Command<u8, u32> {
    Command::Charge { run, session, rho: share(percent) }
}

#[test]
fn costs_round_up_and_allowances_down() {
    for value in [1e-13, 1e-12, 0.1, 1.0 / 3.0, 0.123_456_789_012_345, 99.9] {
        assert!(Rho::cost(value).unwrap().get() >= value && Rho::allowance(value).unwrap().get() <= value);
        assert!(Rho::cost(value).unwrap().trillionths() - Rho::allowance(value).unwrap().trillionths() <= 4);
    }
    // The product with 10^12 may have been rounded down, or up.
    assert_eq!((Rho::cost(0.25).unwrap(), Rho::allowance(0.25).unwrap()), (rho(250_000_000_001), rho(249_999_999_999)));
    assert_eq!((Rho::cost(0.0).unwrap(), Rho::allowance(0.0).unwrap()), (Rho::ZERO, Rho::ZERO));
    assert_eq!(rho(250_000_000_001).to_string(), "0.250000");
    for bad in [-1.0, f64::NAN, f64::INFINITY, 1e7] {
        assert!(Rho::cost(bad).is_err() && Rho::allowance(bad).is_err());
    }
    assert!(budget().epsilon_of(budget().rho()).unwrap() <= 8.0);
    assert_eq!(rho(u64::MAX).plus(rho(1)), rho(u64::MAX), "never wraps to nothing");
    assert_eq!(rho(1).less(rho(2)), Rho::ZERO);
}

#[test]
fn a_run_that_does_not_fit_is_told_what_would() {
    let mut ledger = Ledger::new(budget());
    run(&mut ledger, reserve(1, 70)).unwrap();
    let refusal = run(&mut ledger, reserve(2, 40)).unwrap_err();
    let Refusal::Exceeded { asked, left, budget: all, fits } = refusal else { panic!("{refusal}") };
    assert_eq!((asked, left, all), (share(40), budget().rho().less(share(70)), budget().rho()));
    assert!(refusal.to_string().contains("75 % of its rounds"), "{refusal}");
    // A run that is planned for that ε does fit.
    let smaller = Budget::new(fits, 1e-6).unwrap().rho();
    assert_eq!(run(&mut ledger, Command::Reserve { run: 2, total: smaller }), Ok(true));
    assert!(ledger.left().get() < 1e-6);
}

#[test]
fn an_open_reservation_counts_in_full_and_settling_frees_the_rest() {
    let mut ledger = Ledger::new(budget());
    run(&mut ledger, reserve(1, 60)).unwrap();
    run(&mut ledger, charge(1, 1, 10)).unwrap();
    assert!(matches!(run(&mut ledger, reserve(2, 60)), Err(Refusal::Exceeded { .. })));
    assert_eq!((ledger.spent(), ledger.held()), (share(10), share(60)));
    assert_eq!(run(&mut ledger, Command::Settle { run: 1 }), Ok(true));
    assert_eq!((ledger.spent(), ledger.held()), (share(10), share(10)));
    assert_eq!(run(&mut ledger, Command::Settle { run: 1 }), Ok(false), "once");
    assert_eq!(run(&mut ledger, reserve(2, 60)), Ok(true));
    assert_eq!(ledger.run(&1), Some((share(10), share(10))));
}

/// Another budget changes what is left, and nothing of what was spent.
#[test]
fn a_budget_may_be_raised_and_lowered() {
    let mut ledger = Ledger::new(budget());
    run(&mut ledger, reserve(1, 60)).unwrap();
    run(&mut ledger, charge(1, 1, 50)).unwrap();
    let half = Budget::of_rho(budget().rho().get() / 2.0, 1e-6).unwrap();
    ledger.rebudget(half);
    assert_eq!((*ledger.budget(), ledger.left(), ledger.spent()), (half, Rho::ZERO, share(50)));
    assert!(matches!(run(&mut ledger, reserve(2, 1)), Err(Refusal::Exceeded { .. })));
    ledger.rebudget(budget());
    let left = ledger.left();
    assert_eq!(left, budget().rho().less(share(60)));
    assert!(matches!(run(&mut ledger, Command::Reserve { run: 2, total: left.plus(rho(1)) }), Err(Refusal::Exceeded { .. })));
    assert_eq!(run(&mut ledger, Command::Reserve { run: 2, total: left }), Ok(true), "to the last trillionth");
    assert_eq!(ledger.open_runs().collect::<Vec<_>>(), [&1, &2]);
    run(&mut ledger, Command::Settle { run: 1 }).unwrap();
    assert_eq!(ledger.open_runs().collect::<Vec<_>>(), [&2]);
}

#[test]
fn a_session_is_charged_once() {
    let mut ledger = Ledger::new(budget());
    run(&mut ledger, reserve(1, 50)).unwrap();
    run(&mut ledger, reserve(2, 50)).unwrap();
    assert_eq!(run(&mut ledger, charge(1, 7, 20)), Ok(true));
    assert_eq!(run(&mut ledger, charge(1, 7, 20)), Ok(false));
    assert_eq!(run(&mut ledger, charge(1, 7, 15)), Ok(false), "more survivors cost less: covered");
    assert!(matches!(run(&mut ledger, charge(1, 7, 25)), Err(Refusal::SessionDiffers { .. })));
    assert!(matches!(run(&mut ledger, charge(2, 7, 20)), Err(Refusal::SessionDiffers { .. })));
    assert_eq!(ledger.spent(), share(20));
    run(&mut ledger, Command::Settle { run: 1 }).unwrap();
    assert_eq!(run(&mut ledger, charge(1, 7, 20)), Ok(false), "a repeated request after the end is still paid for");
    assert_eq!(run(&mut ledger, charge(1, 8, 1)), Err(Refusal::Closed));
    assert_eq!(run(&mut ledger, reserve(1, 60)), Err(Refusal::Closed));
}

#[test]
fn a_run_stays_within_its_reservation_and_may_ask_for_more() {
    let mut ledger = Ledger::new(budget());
    assert_eq!(run(&mut ledger, charge(1, 1, 1)), Err(Refusal::NotReserved));
    assert_eq!(run(&mut ledger, Command::Settle { run: 1 }), Err(Refusal::NotReserved));
    run(&mut ledger, reserve(1, 30)).unwrap();
    run(&mut ledger, charge(1, 1, 20)).unwrap();
    assert_eq!(run(&mut ledger, charge(1, 2, 20)), Err(Refusal::ReservationSpent { asked: share(20), left: share(30).less(share(20)) }));
    assert_eq!(run(&mut ledger, reserve(1, 20)), Ok(false), "less is reserved already");
    assert_eq!(run(&mut ledger, reserve(1, 50)), Ok(true));
    assert_eq!(run(&mut ledger, charge(1, 2, 20)), Ok(true));
    assert_eq!(ledger.held(), share(50));
    assert_eq!(run(&mut ledger, reserve(2, 0)), Err(Refusal::Nothing));
    assert_eq!(run(&mut ledger, charge(1, 3, 0)), Err(Refusal::Nothing));
}

#[test]
fn a_restored_backup_counts_everything_that_may_have_happened() {
    let mut ledger = Ledger::new(budget());
    run(&mut ledger, reserve(1, 30)).unwrap();
    run(&mut ledger, charge(1, 1, 10)).unwrap();
    // From here on the backup knows nothing, but the run goes on and another one starts.
    let mut backup = ledger.clone();
    run(&mut ledger, charge(1, 2, 10)).unwrap();
    run(&mut ledger, reserve(2, 20)).unwrap();
    run(&mut ledger, charge(2, 3, 20)).unwrap();
    run(&mut backup, Command::Restore { at_least: Rho::ZERO }).unwrap();
    assert_eq!(backup.spent(), share(30), "the open run in full");
    assert_eq!(run(&mut backup, charge(1, 2, 10)), Err(Refusal::Closed));
    run(&mut backup, Command::Restore { at_least: ledger.spent() }).unwrap();
    assert!(backup.spent() >= ledger.spent());
    run(&mut backup, Command::Restore { at_least: share(5) }).unwrap();
    assert!(backup.spent() >= ledger.spent(), "knowing less later takes nothing away");
}

/// A simulated coordinator: what is durable, what is in memory, and what the world has seen.
#[derive(Default)]
struct World {
    store: Vec<Event<u8, u32>>,
    /// Sessions whose sum was revealed, with what that truly cost.
    revealed: BTreeMap<u32, Rho>,
}

#[derive(Clone, Debug)]
enum Op {
    Reserve(u8, u64),
    /// Decide, make durable, reveal; the crash may come before, between or after.
    Round {
        run: u8,
        session: u32,
        cost: u64,
        crash: u8,
    },
    Settle(u8),
    /// Two runs decide on the same state; the store takes the first.
    Race(u8, u8, u64),
    Restore {
        lost: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..4u8, 1..60u64).prop_map(|(run, part)| Op::Reserve(run, part)),
        8 => (0..4u8, 0..40u32, 1..15u64, 0..4u8).prop_map(|(run, session, cost, crash)| Op::Round { run, session, cost, crash }),
        1 => (0..4u8).prop_map(Op::Settle),
        1 => (0..4u8, 0..4u8, 30..80u64).prop_map(|(a, b, part)| Op::Race(a, b, part)),
        1 => (0..4usize).prop_map(|lost| Op::Restore { lost }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Invariants after every step: the ledger is at or above the truth, reservations and charges never exceed the budget, and a replay of
    /// the store is the same ledger.
    #[test]
    fn the_ledger_never_lies(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::default();
        let mut ledger = Ledger::new(budget());
        for op in ops {
            let commit = |ledger: &mut Ledger, world: &mut World, event: Option<Event<u8, u32>>, at: usize| {
                if let Some(event) = event && world.store.len() == at {
                    world.store.push(event.clone());
                    ledger.apply(&event);
                    return true;
                }
                false
            };
            let at = world.store.len();
            match op {
                Op::Reserve(run, part) => {
                    if let Ok(event) = ledger.decide(reserve(run, part)) {
                        commit(&mut ledger, &mut world, event, at);
                    }
                }
                Op::Settle(run) => {
                    if let Ok(event) = ledger.decide(Command::Settle { run }) {
                        commit(&mut ledger, &mut world, event, at);
                    }
                }
                Op::Race(a, b, part) => {
                    let (first, second) = (ledger.decide(reserve(a, part)), ledger.decide(reserve(b, part)));
                    for event in [first, second].into_iter().flatten() {
                        commit(&mut ledger, &mut world, event, at);
                    }
                }
                Op::Round { run, session, cost, crash } => {
                    let Ok(event) = ledger.decide(charge(run, session, cost)) else { continue };
                    if crash == 1 {
                        // Decided, not durable: nothing has happened.
                        ledger = Ledger::replay(budget(), &world.store);
                        continue;
                    }
                    commit(&mut ledger, &mut world, event, at);
                    if crash == 2 {
                        // Durable, not revealed: the charge stays.
                        ledger = Ledger::replay(budget(), &world.store);
                        continue;
                    }
                    let truth = world.revealed.entry(session).or_default();
                    *truth = (*truth).max(share(cost));
                    if crash == 3 {
                        ledger = Ledger::replay(budget(), &world.store);
                    }
                }
                Op::Restore { lost } => {
                    // A backup without the last events; what was published is known, and the sessions that it lost are never used again.
                    let truth = world.revealed.values().fold(Rho::ZERO, |sum, rho| sum.plus(*rho));
                    world.store.truncate(world.store.len().saturating_sub(lost));
                    ledger = Ledger::replay(budget(), &world.store);
                    let (event, at) = (ledger.decide(Command::Restore { at_least: truth }).unwrap(), world.store.len());
                    commit(&mut ledger, &mut world, event, at);
                    // Forgotten sessions count as one lump, which the ledger holds, too. One that it still knows is the same as before.
                    let known = |session: &u32| {
                        world.store.iter().any(|event| matches!(event, Event::Charged { session: paid, .. } if paid == session))
                    };
                    let (kept, lost): (BTreeMap<_, _>, BTreeMap<_, _>) =
                        world.revealed.iter().map(|(session, rho)| (*session, *rho)).partition(|(session, _)| known(session));
                    let lump = lost.into_values().fold(Rho::ZERO, Rho::plus);
                    world.revealed = kept.into_iter().chain([(u32::MAX, lump)]).collect();
                }
            }
            let truth = world.revealed.values().fold(Rho::ZERO, |sum, rho| sum.plus(*rho));
            prop_assert!(ledger.spent() >= truth, "spent {} and {truth} revealed", ledger.spent());
            prop_assert!(ledger.held() >= ledger.spent());
            let restored = ledger.unrecorded != Rho::ZERO;
            prop_assert!(restored || ledger.held() <= budget().rho());
            prop_assert_eq!(&Ledger::replay(budget(), &world.store), &ledger);
        }
    }

    /// Whatever a broken store replays, in whatever order and however often, no charge gets lost.
    #[test]
    fn repeated_and_reordered_events_lose_nothing(sessions in prop::collection::vec((0..3u8, 0..20u32, 1..9u64), 1..30), seed in any::<u64>()) {
        let events: Vec<_> = sessions.iter().map(|(run, session, part)| Event::Charged { run: *run, session: *session, rho: share(*part) }).collect();
        let mut shuffled: Vec<_> = events.iter().chain(&events).cloned().collect();
        let len = shuffled.len();
        for i in 0..len {
            shuffled.swap(i, (seed.rotate_left(i as u32) % len as u64) as usize);
        }
        let mut largest: BTreeMap<u32, Rho> = BTreeMap::new();
        for (_, session, part) in &sessions {
            let most = largest.entry(*session).or_default();
            *most = (*most).max(share(*part));
        }
        let truth = largest.values().fold(Rho::ZERO, |sum, rho| sum.plus(*rho));
        prop_assert!(Ledger::replay(budget(), &shuffled).spent() >= truth);
        prop_assert_eq!(Ledger::replay(budget(), &events).spent(), truth);
    }

    /// Up to and including the first refusal, which ends OpenDP's filter for good. Costs are powers of two, so floats are exact there,
    /// and half the smallest cost keeps our rounding away from the edge.
    #[test]
    fn opendp_s_filter_decides_the_same(costs in prop::collection::vec(4i32..10, 1..60)) {
        let limit = 1.0 + 1.0 / 2048.0;
        let mut ledger = Ledger::new(Budget::of_rho(limit, 1e-6).unwrap());
        let space = (VectorDomain::new(AtomDomain::<i64>::default()), L2Distance::<f64>::default());
        let odometer = make_fully_adaptive_composition(space.0.clone(), space.1.clone(), ZeroConcentratedDivergence).unwrap();
        let mut filter = make_privacy_filter(odometer, 1.0, limit).unwrap().invoke(&vec![0i64]).unwrap();
        for (session, exponent) in (0u32..).zip(costs) {
            // ρ = 1/(2z²).
            let cost = f64::from(exponent).exp2().recip();
            let gaussian = make_gaussian::<_, _, ZeroConcentratedDivergence>(space.0.clone(), space.1.clone(), (0.5 / cost).sqrt(), None).unwrap();
            let theirs = filter.invoke(gaussian).is_ok();
            let total = Rho::cost(cost).unwrap();
            let ours = run(&mut ledger, Command::Reserve { run: session as u8, total }).is_ok();
            prop_assert_eq!(ours, theirs);
            if !ours {
                break;
            }
            run(&mut ledger, Command::Charge { run: session as u8, session, rho: total }).unwrap();
        }
    }
}
