//! Where a test may kill a node: after everything that is written, and before what is said about it.

use sapwood_failpoint as failpoint;

failpoint::points! {
    /// Where a test may kill a node while it enrols, keeps its line, or takes part in a round.
    pub POINTS {
        /// The keys of an enrolment are on disk; nobody has seen them.
        KEYS_STORED = "node.after-keys",
        /// The request is on disk; it has not been sent.
        REQUEST_STORED = "node.after-enrollment-request",
        /// The membership is on disk; the certificate is not.
        MEMBERSHIP_STORED = "node.after-membership",
        /// Enrolled; not connected yet.
        ENROLLED = "node.after-enrolled",
        /// The renewed certificate is on disk; the old one is in use.
        RENEWED = "node.after-renewed",
        /// The new ticket is on disk; no order has been followed.
        TICKET_STORED = "node.after-ticket",
        /// A task is accepted; nothing has been fetched or trained.
        TASK_ACCEPTED = "node.after-task",
        /// In the middle of training.
        TRAINING = "node.while-training",
        /// Trained; the update has not been sent.
        TRAINED = "node.after-trained",
        /// The privacy ledger is charged; the masked input has not left.
        CHARGED = "node.after-charge",
        /// In the middle of sending the update.
        SUBMITTING = "node.while-submitting",
        /// The coordinator has the update; the node has not taken note.
        SUBMITTED = "node.after-submitted",
    }
}
