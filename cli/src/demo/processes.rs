//! The demo's processes: this same binary as a coordinator and as nodes.
//!
//! Each child stops when its standard input closes, so nothing outlives the demo, however the demo ends.

use std::{fs::File, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// How long a process may take to come up, and to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// One running process of the demo.
pub(super) struct Process {
    pub(super) name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `sapwood ARGS…`; what it logs goes to `log`.
    pub(super) fn start(name: &str, args: &[&str], log: &Path) -> Result<Self> {
        let binary = std::env::current_exe().context("this binary has no path")?;
        let log = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut child = Command::new(binary)
            .args(args)
            .args(["--json", "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        Ok(Self { name: name.to_owned(), child, lines: BufReader::new(stdout).lines() })
    }

    /// Waits for the line with which a daemon says that it is up, and the address in it.
    pub(super) async fn ready(&mut self, key: &str) -> Result<SocketAddr> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.with_context(|| format!("{} did not come up", self.name))??;
        let Some(line) = line else { bail!("{} ended before it came up; see its log", self.name) };
        let said: Value = serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))?;
        let address = said["data"][key].as_str().with_context(|| format!("{} said {line:?}", self.name))?;
        Ok(address.parse()?)
    }

    /// Asks it to go and waits; kills it if it does not.
    pub(super) async fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    bail!("{} ended with {status}", self.name);
                }
            }
            Err(_) => self.child.kill().await?,
        }
        Ok(())
    }

    /// Whether it still runs.
    pub(super) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}
