//! Which allocator the binary uses, and how soon that gives memory back.
#![allow(unsafe_code)] // one option of the allocator

use std::ffi::{c_int, c_long};

use libmimalloc_sys::mi_option_set_default;

/// Training allocates and frees large buffers at every step; this allocator keeps them warm.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of the allocator's third version, which the bindings leave without a name.
const PURGE_DELAY: c_int = 15;
/// Milliseconds; the allocator's own default is a second.
const SOON: c_long = 100;

/// For a coordinator: its buffers are of a model's size and seldom, and what is held for a second adds to its peak.
/// `MIMALLOC_PURGE_DELAY` in the environment has the last word.
pub(crate) fn give_back_soon() {
    // SAFETY: stores a number that the allocator reads atomically.
    unsafe { mi_option_set_default(PURGE_DELAY, SOON) }
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    /// Another version of the allocator may number its options anew.
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reads a number.
        let get = || unsafe { mi_option_get(PURGE_DELAY) };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            assert_eq!(get(), 1000, "the default of mi_option_purge_delay");
            give_back_soon();
            assert_eq!(get(), SOON);
        }
    }
}
