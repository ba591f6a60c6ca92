use zeroize::ZeroizeOnDrop;

use super::{agreed::Peer, masked::Held, ready::Holding, shared::Neighbour, *};
use crate::secagg::{
    plan::Profile,
    shamir::Share,
    tests::{World, terms},
};

fn wiped<T: ZeroizeOnDrop>(_: &T) {}

fn both(shares: &Option<(Share, Share)>) {
    if let Some((of_key, of_seed)) = shares {
        wiped(of_key);
        wiped(of_seed);
    }
}

/// What a client holds, field by field: a new one does not compile until somebody has said here whether it is secret. The state by
/// name.
fn secrets_of(client: &Client) -> &'static str {
    let Client { terms: _, state, last } = client;
    if let Some((_, _, Answer::Bytes(bytes))) = last {
        wiped(bytes);
    }
    match state {
        State::Advertised(state) => {
            let Advertised { channel_secret, mask_secret, own: _ } = &**state;
            wiped(channel_secret);
            wiped(mask_secret);
            "advertised"
        }
        State::Shared(state) => {
            let Shared { place: _, neighbours, own_secret } = &**state;
            wiped(own_secret);
            for Neighbour { rank: _, identity: _, open_key, pair_seed } in neighbours {
                wiped(open_key);
                wiped(pair_seed);
            }
            "shared"
        }
        State::Ready(state) => {
            let Ready { place: _, sharers: _, own_secret, holdings } = &**state;
            wiped(own_secret);
            for Holding { rank: _, identity: _, pair_seed, shares } in holdings {
                wiped(pair_seed);
                both(shares);
            }
            "ready"
        }
        State::Masked(state) => {
            let Masked { place: _, sharers: _, held } = &**state;
            held.iter().for_each(|Held { rank: _, identity: _, shares }| both(shares));
            "masked"
        }
        State::Agreed(state) => {
            let Agreed { signed: _, threshold: _, peers } = &**state;
            for Peer { rank: _, identity: _, survives: _, share } in peers {
                share.iter().for_each(wiped);
            }
            "agreed"
        }
        State::Done | State::Over => "nothing",
    }
}

/// Whatever a client waits for, each of its secrets wipes itself.
#[test]
fn every_state_wipes_its_secrets() {
    let state = |world: &World| secrets_of(world.clients[0].as_ref().unwrap());
    for (round, before, after) in [(1, "advertised", "shared"), (2, "shared", "ready"), (3, "masked", "agreed"), (4, "agreed", "nothing")] {
        let mut world = World::at(4, terms(Profile::Curious, 0.25, 4), round);
        assert_eq!(state(&world), before);
        let message = world.server.message_for(0).unwrap();
        world.deliver(0, &message).unwrap();
        assert_eq!(state(&world), after);
    }
}
