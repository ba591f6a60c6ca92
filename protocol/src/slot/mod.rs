//! A node's slots: how one release takes another's place without a moment in which none, or a mixture, would answer.
//!
//! ```mermaid
//! stateDiagram-v2
//!     Settled --> Installing: assigned another release
//!     Installing --> Settled: refused; nothing has changed
//!     Installing --> Trial: exchanged
//!     Trial --> Settled: healthy for the whole window; committed
//!     Trial --> Reverting: unhealthy, silent, or restarted too often
//!     Reverting --> Settled: the last known good answers again
//!     Settled --> Withdrawing: assigned nothing
//!     Withdrawing --> Settled
//! ```
//!
//! Within `Installing`: preflight → download → verify → stage → smoke test → exchange. Up to the exchange the committed
//! release answers and nothing of it is touched; after it, the last known good stays in its slot until the newcomer is
//! committed.

mod decide;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use self::{
    event::{Device, Effect, Event, Input, Verdict},
    state::{Policy, Slots},
};
