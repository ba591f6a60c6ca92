//! Keeping the library's telemetry off.
//!
//! The library decides when its environment is created, from its own process environment, so no
//! call through its API comes early enough.

#![allow(unsafe_code)] // see disable_telemetry

const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Sets `ORT_DISABLE_TELEMETRY=1` for this process and its children.
///
/// Call it as the first statement of `main`, before any thread exists.
pub fn disable_telemetry() {
    // SAFETY: setting a variable races with other threads that read the environment; the contract
    // of this function is that none has been started yet.
    unsafe { std::env::set_var(VARIABLE, "1") };
}

/// Whether the library would find its telemetry switched off.
#[must_use]
pub fn telemetry_disabled() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|v| v == "1")
}
