//! A whole run under random interleavings, crashes and faults, with the real machines of both ends and the real encoding.
//!
//! A simulated world of one coordinator and some nodes is driven by a list of [`Op`]s; after each step its invariants
//! are checked. When the list is used up the world becomes kind (everyone answers, nothing crashes), and the run must end.
//! A failing list is printed by proptest and replays.

mod world;

use proptest::prelude::*;
use sapwood_protocol::run::RunState;

use world::{Op, World, spec};

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let node = 0usize..6;
    let op = prop_oneof![
        20 => Just(Op::Effect),
        2 => Just(Op::Crash),
        15 => node.clone().prop_map(Op::Deliver),
        15 => node.clone().prop_map(Op::Train),
        1 => node.clone().prop_map(Op::Fail),
        15 => node.clone().prop_map(Op::Answer),
        3 => node.clone().prop_map(Op::Repeat),
        2 => node.clone().prop_map(Op::Restart),
        2 => node.clone().prop_map(Op::Toggle),
        3 => (node, 0u8..4).prop_map(|(n, k)| Op::Attack(n, k)),
        4 => (1u16..40).prop_map(Op::Wait),
    ];
    prop::collection::vec(op, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// Whatever happens, the invariants hold; and once the world is kind the run ends, with all its rounds or with a reason.
    #[test]
    fn a_run_survives_any_interleaving(
        ops in ops(), size in 2u32..5, slack in 0u32..3, over in prop_oneof![Just(0.0), Just(0.5)], extra in 0usize..2,
    ) {
        let minimum = size.saturating_sub(slack).max(1);
        let spec = spec(size, minimum, over, 3, 50);
        let asked = spec.cohort.asked() as usize;
        let mut world = World::new(spec, asked + extra);
        for op in ops {
            if world.run.is_over() {
                break;
            }
            world.apply(op);
        }
        world.be_kind();
        match world.run.state() {
            RunState::Released => prop_assert_eq!(world.run.rounds().len(), 3),
            RunState::Failed => prop_assert!(world.run.detail().unwrap().contains("failed 50 times")),
            other => prop_assert!(false, "{other}"),
        }
        // Until it dies or forgets, a node trains once for a round, however many attempts the round took.
        for node in &world.nodes {
            prop_assert!(node.trained.values().all(|times| *times <= 1), "{:?}", node.trained);
        }
    }

    /// With minimum = cohort the final model is bit-equal however often the coordinator or a node died.
    #[test]
    fn crashes_do_not_change_a_bit(
        ops in prop::collection::vec(prop_oneof![
            12 => Just(Op::Effect), 2 => Just(Op::Crash), 8 => (0usize..4).prop_map(Op::Deliver), 8 => (0usize..4).prop_map(Op::Train),
            8 => (0usize..4).prop_map(Op::Answer), 2 => (0usize..4).prop_map(Op::Restart), 2 => (0usize..4).prop_map(Op::Repeat),
        ], 0..300),
        nodes in 4usize..6,
    ) {
        let mut calm = World::new(spec(4, 4, 0.0, 3, 1), nodes);
        calm.be_kind();
        let mut rough = World::new(spec(4, 4, 0.0, 3, 1), nodes);
        for op in ops {
            rough.apply(op);
        }
        rough.be_kind();
        prop_assert_eq!(rough.run.state(), RunState::Released);
        prop_assert_eq!(rough.run.params(), calm.run.params());
        let cohorts = |world: &World| world.run.rounds().iter().map(|round| round.cohort.clone()).collect::<Vec<_>>();
        prop_assert_eq!(cohorts(&rough), cohorts(&calm));
    }

    /// A crash after any prefix of the events leads to the end, and to the same model.
    #[test]
    fn any_prefix_recovers(cut in 0usize..60) {
        let mut whole = World::new(spec(3, 3, 0.0, 2, 1), 3);
        whole.be_kind();
        let mut again = World::new(spec(3, 3, 0.0, 2, 1), 3);
        // Events up to the cut are in the store; the outbox of that time is delivered, the nodes know nothing else.
        while again.events.len() < cut.min(whole.events.len()) && !again.run.is_over() {
            if !again.effect() {
                for i in 0..3 {
                    for op in [Op::Deliver(i), Op::Train(i), Op::Answer(i)] {
                        if again.events.len() < cut {
                            again.apply(op);
                        }
                    }
                }
            }
        }
        again.crash();
        again.crash();
        again.be_kind();
        prop_assert_eq!(again.run.state(), RunState::Released);
        prop_assert_eq!(again.run.params(), whole.run.params());
    }
}
