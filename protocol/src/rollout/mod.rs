//! The rollout: a release spreads over the fleet ring by ring, and goes back by itself.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Waiting: created, started
//!     Waiting --> Open: roster known, ring has nodes
//!     Waiting --> Waiting: ring is empty, recorded as skipped
//!     Open --> Waiting: every member healthy on the running digest for the soak time
//!     Open --> Reverting: a member failed, refused, or kept silent past its deadline
//!     Reverting --> RolledBack: every member of this ring runs the previous release again
//!     Reverting --> HaltedNotConverged: the deadline passed first
//!     Waiting --> Completed: no ring left
//! ```

mod assign;
mod decide;
mod event;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub use self::{
    assign::Assignment,
    event::{Created, Effect, Event, Input, Order},
    state::{Outcome, Rollout},
    status::{Health, NodeStatus, NodeView, Refusal, Step},
};
