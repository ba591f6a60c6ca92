//! What the node is, as it tells the coordinator.

use sapwood_proto::v1;

/// Reads the machine. `runtime` is ONNX Runtime's version, if it was found.
pub(crate) fn profile(device_class: String, runtime: Option<&str>, serving: Option<std::net::SocketAddr>, trains: bool) -> v1::Profile {
    v1::Profile {
        arch: std::env::consts::ARCH.to_owned(),
        cores: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes().unwrap_or(0),
        device_class,
        runtime: runtime.unwrap_or_default().to_owned(),
        accelerators: if runtime.is_some() { vec!["cpu".to_owned()] } else { Vec::new() },
        os: std::env::consts::OS.to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        serving_address: serving.map(|address| address.to_string()).unwrap_or_default(),
        trains,
    }
}

/// The machine's memory, where the system says it (`MemTotal` of `/proc/meminfo`).
pub(crate) fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?.trim();
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_says_what_is_known_and_leaves_out_what_is_not() {
        let profile = profile("cpu".to_owned(), None, None, false);
        assert!(profile.cores > 0 && !profile.arch.is_empty() && !profile.agent_version.is_empty());
        assert!(profile.runtime.is_empty() && profile.accelerators.is_empty());
        assert_eq!(profile.memory_bytes, memory_bytes().unwrap_or(0));
    }
}
