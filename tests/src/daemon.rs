//! One process that may be killed and started again.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, OpenOptions},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{DEADLINE, binary};

const SIGKILL: i32 = 9;

/// A daemon: its command line, its script and, while it lives, its process.
pub struct Daemon {
    /// For messages, and its log's name.
    pub name: String,
    args: Vec<OsString>,
    /// The key of the address in the line with which it says that it is up.
    key: &'static str,
    log: PathBuf,
    script: VecDeque<String>,
    child: Option<Child>,
    /// Where it listens, in its present life.
    pub address: Option<SocketAddr>,
    /// The points at which it was killed, in order.
    pub killed: Vec<String>,
}

impl Daemon {
    /// Not started yet. `args` are without `--json --until-stdin-closes`.
    pub fn new<S: Into<OsString>>(name: &str, args: impl IntoIterator<Item = S>, key: &'static str, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            key,
            log,
            script: VecDeque::new(),
            child: None,
            address: None,
            killed: Vec::new(),
        }
    }

    /// Where its next lives end: `POINT` or `POINT@N`, as in `SAPWOOD_FAILPOINT`. The life after the last goes on.
    pub fn script(&mut self, points: &[&str]) {
        self.script.extend(points.iter().map(|&point| point.to_owned()));
    }

    /// What is left of the script.
    pub fn left(&self) -> Vec<String> {
        self.script.iter().cloned().collect()
    }

    /// Everything it logged, in all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts it and waits until it is up, through as many scripted deaths as come before that.
    ///
    /// # Panics
    /// If it does not come up, or ends in any other way than by its script.
    pub async fn start(&mut self) {
        while !self.spawn().await {
            self.mourn();
        }
    }

    /// One life: true when it is up, false when it died before.
    async fn spawn(&mut self) -> bool {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log can be written");
        let mut command = Command::new(binary());
        command.args(&self.args).args(["--json", "--until-stdin-closes"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        command.env_remove("SAPWOOD_FAILPOINT").env_remove("SAPWOOD_TOKEN");
        if let Some(point) = self.script.front() {
            command.env("SAPWOOD_FAILPOINT", point);
        }
        let mut child = command.spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        self.child = Some(child);
        let line = timeout(DEADLINE, lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{} did not come up:\n{}", self.name, self.log()));
        let said = line.ok().flatten().and_then(|line| serde_json::from_str::<Value>(&line).ok());
        self.address = said.and_then(|said| said["data"][self.key].as_str()?.parse().ok());
        self.address.is_some()
    }

    /// Takes note of a death by the script.
    fn mourn(&mut self) {
        let mut child = self.child.take().expect("it was started");
        // Its standard output is closed; it ends or has ended.
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                break status;
            }
            std::thread::yield_now();
        };
        self.account(status);
    }

    fn account(&mut self, status: ExitStatus) {
        self.address = None;
        let point = self.script.pop_front();
        match point {
            Some(point) if status.signal() == Some(SIGKILL) => self.killed.push(point),
            _ => panic!("{} ended with {status}:\n{}", self.name, tail(&self.log())),
        }
    }

    /// Whether it died by its script since the last look; then it is up again.
    ///
    /// # Panics
    /// If it ended in any other way.
    pub async fn tend(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        let Some(status) = child.try_wait().expect("a child can be waited for") else { return false };
        self.child = None;
        self.account(status);
        self.start().await;
        true
    }

    /// Whether its present life has ended. [`Daemon::tend`] begins the next one.
    pub fn is_gone(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("a child can be waited for").is_some())
    }

    /// Ends it at once, wherever it is.
    pub async fn kill(&mut self) {
        self.address = None;
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("a child can be killed");
        }
    }

    /// Asks it to go and waits until it has.
    ///
    /// # Panics
    /// If it does not, or not with success.
    pub async fn stop(&mut self) {
        self.address = None;
        let Some(mut child) = self.child.take() else { return };
        drop(child.stdin.take());
        let status = timeout(DEADLINE, child.wait()).await.unwrap_or_else(|_| panic!("{} does not go:\n{}", self.name, tail(&self.log())));
        let status = status.expect("a child can be waited for");
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, tail(&self.log()));
    }

    /// Starts it and waits until it ends by itself: the exit code, and everything it said.
    ///
    /// # Panics
    /// If it goes on for too long.
    pub async fn end(&mut self) -> (i32, String) {
        let mut command = Command::new(binary());
        command.args(&self.args).arg("--json").stdin(Stdio::null()).kill_on_drop(true);
        command.env_remove("SAPWOOD_FAILPOINT").env_remove("SAPWOOD_TOKEN");
        let output = timeout(DEADLINE, command.output()).await.unwrap_or_else(|_| panic!("{} goes on", self.name));
        let output = output.expect("the binary starts");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), said)
    }
}

/// The end of a log, where the reason is.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
