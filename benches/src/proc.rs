//! What the kernel counted, most of it from /proc. Linux only.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Clock ticks a second in /proc, on every Linux architecture that we run on (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// CPU seconds of the process `pid` so far, user and system, all threads, those that have ended too.
///
/// # Errors
/// If there is no such process.
pub fn process_cpu(pid: u32) -> Result<f64> {
    cpu(Path::new(&format!("/proc/{pid}/stat")))
}

/// CPU seconds of this process so far, user and system, all threads: to the nanosecond, where /proc counts in steps of 10 ms.
pub fn own_cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU seconds so far of this process's threads that are named `name`.
///
/// # Errors
/// If /proc cannot be read.
pub fn thread_cpu(name: &str) -> Result<f64> {
    let mut total = 0.0;
    for entry in fs::read_dir("/proc/self/task")? {
        let folder = entry?.path();
        if fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            total += cpu(&folder.join("stat"))?;
        }
    }
    Ok(total)
}

fn cpu(stat: &Path) -> Result<f64> {
    let text = fs::read_to_string(stat).with_context(|| format!("{} cannot be read", stat.display()))?;
    // The name, in brackets, may hold anything; utime and stime are the 12th and 13th words behind it (proc(5)).
    let (_, words) = text.rsplit_once(')').context("a stat line has a name in brackets")?;
    let ticks = words.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / TICKS)
}

/// Most resident memory of the process `pid` so far, in bytes.
///
/// # Errors
/// If there is no such process.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the status has no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}

/// Bytes that have gone over the loopback device, of all processes of the machine.
///
/// # Errors
/// If there is no such device.
pub fn loopback() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).context("there is no loopback device")?;
    Ok(line.split_whitespace().next().context("the device has no counts")?.parse()?)
}
