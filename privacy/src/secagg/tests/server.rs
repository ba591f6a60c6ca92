//! What a server says of itself, and how few it goes on with.

use super::*;

#[test]
fn a_server_says_where_it_stands_and_nothing_of_what_it_holds() {
    let mut world = World::new(4, terms(Profile::Curious, 0.25, 4), 1);
    let says = |world: &World, phase: &str| {
        assert_eq!(format!("{:?}", world.server), format!("Server({:?}, {phase})", world.terms.session));
        assert_eq!(world.server.is_over(), phase == "over");
        assert_eq!(world.server.plan().is_some(), !["advertising", "over"].contains(&phase));
    };
    says(&world, "advertising");
    assert_eq!(world.server.expected(), [0, 1, 2, 3]);
    assert_eq!(world.server.index_of(0), None, "nobody has a rank yet");
    // Without participant 1, ranks and indices differ.
    world.advertise(|i| i != 1).unwrap();
    assert_eq!([0, 1, 2, 3].map(|rank| world.server.index_of(rank)), [Some(0), Some(2), Some(3), None]);
    for phase in ["sharing", "masking", "agreeing"] {
        says(&world, phase);
        assert_eq!(world.server.expected(), [0, 2, 3]);
        world.exchange(|_| true);
        world.server.close().unwrap();
    }
    says(&world, "unmasking");
    world.exchange(|_| true);
    assert!(world.server.can_open());
    world.server.open(1).unwrap();
    says(&world, "over");
    assert_eq!(world.server.receive_vector(0, &world.terms.session, &[[0; 10]]), Err(Fault::Over));
    assert_eq!(world.server.index_of(1), Some(2), "a fault behind the end can still be told");
}

/// How many come decides: exactly as many as needed are enough, one fewer are not.
#[test]
fn as_many_as_needed_are_enough() {
    let fewest = |phase: u8| {
        (0..=8).find(|stay| {
            let mut world = World::new(8, Terms { minimum: 5, ..terms(Profile::Curious, 0.25, 4) }, 2);
            let stays = |round: u8| move |i: u32| round != phase || i < *stay;
            let mut closed = world.advertise(stays(0));
            for round in 1..4 {
                if closed.is_ok() {
                    world.exchange(stays(round));
                    closed = world.server.close();
                }
            }
            closed.is_ok()
        })
    };
    let plan = terms(Profile::Curious, 0.25, 4).plan(8).unwrap();
    assert_eq!(fewest(0), Some(5), "the minimum of the terms");
    assert_eq!(fewest(1), Some(plan.survivors()));
    assert_eq!(fewest(2), Some(plan.survivors()));
}
