//! `sapwood privacy …`: what a budget means, before a run and after it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sapwood_privacy::{
    Bits, Weighting,
    accountant::{self, Accountant, Gaussian, Observer},
    dp::{Plan, Request, Statement, Trust, Unit},
    secagg,
};
use sapwood_proto::v1;
use sapwood_protocol::{ledger::LedgerView, release::Manifest};
use serde_json::json;

use crate::{
    output::{Answer, Exit, Failure, OrFail, table},
    remote::{Operator, refused, view},
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// What the Gaussian mechanism costs: epsilon of so many rounds at this noise.
    #[command(
        after_help = "Examples:\n  sapwood privacy epsilon --noise-multiplier 1.1 --sampling-rate 0.01 --rounds 1000 --delta 1e-5\n  \
        sapwood privacy epsilon --noise-multiplier 5 --rounds 20 --delta 1e-6 --accountant zcdp --json"
    )]
    Epsilon(EpsilonArgs),
    /// The parameters that keep a budget, and an honest forecast of what the noise does to learning.
    #[command(
        after_help = "Example:\n  sapwood privacy plan --cohort 100 --dropout 0.1 --corruption 0.05 --epsilon 8 --delta 1e-6 \\\n    \
        --rounds 100 --dimension 100000 --unit node --clip 1"
    )]
    Plan(PlanArgs),
    /// What the coordinator's ledgers have spent.
    #[command(after_help = "Example:\n  sapwood privacy ledger --coordinator 127.0.0.1:7443 --credentials farm/operator")]
    Ledger(Operator),
    /// What a release promises, from its manifest: to whom, under which assumptions, and what not.
    #[command(after_help = "Example:\n  sapwood privacy describe release/manifest.json")]
    Describe {
        /// A release's manifest.json. `sapwood release verify` checks its signature; this only reads it.
        manifest: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct EpsilonArgs {
    /// Standard deviation of the noise over the sensitivity.
    #[arg(long)]
    noise_multiplier: f64,
    /// Chance of each unit to be in a round (Poisson sampling).
    #[arg(long, default_value_t = 1.0)]
    sampling_rate: f64,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    #[arg(long)]
    delta: f64,
    #[arg(long, value_enum, default_value_t = Method::Pld)]
    accountant: Method,
}

/// How privacy loss is added up.
#[derive(Clone, Copy, ValueEnum)]
enum Method {
    /// Renyi differential privacy (Mironov 2017), with Poisson subsampling.
    Rdp,
    /// Privacy loss distributions (Sommer et al. 2019): the tightest.
    Pld,
    /// Zero-concentrated (Bun, Steinke 2016): no subsampling.
    Zcdp,
}

impl Method {
    fn of(self) -> (&'static str, Accountant) {
        match self {
            Self::Rdp => ("rdp", Accountant::Rdp),
            Self::Pld => ("pld", Accountant::Pld),
            Self::Zcdp => ("zcdp", Accountant::Zcdp),
        }
    }
}

#[derive(Args)]
pub(crate) struct PlanArgs {
    /// Nodes in a round.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    cohort: u32,
    /// Share of them that may work together with the coordinator; one always may.
    #[arg(long, default_value_t = 0.05)]
    corruption: f64,
    /// Share of them that may leave without costing the round.
    #[arg(long, default_value_t = 0.1)]
    dropout: f64,
    #[arg(long, value_enum, default_value_t = ProfileWord::SemiMalicious)]
    profile: ProfileWord,
    /// Of the whole run, against the coordinator.
    #[arg(long)]
    epsilon: f64,
    #[arg(long)]
    delta: f64,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Floats of an update.
    #[arg(long)]
    dimension: usize,
    #[arg(long, value_enum)]
    unit: UnitWord,
    /// L2 norm that one unit's contribution is clipped to.
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// Under entity and example: how many units a cohort has together, about. A public number; left out, 100 for each node.
    #[arg(long)]
    expected_units: Option<f64>,
    /// Under entity and example: most units of one node.
    #[arg(long, default_value_t = 1024)]
    units_per_node: u32,
    /// Width of an element on the wire; left out, as few bits as do.
    #[arg(long)]
    bits: Option<u8>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileWord {
    HonestButCurious,
    SemiMalicious,
}

#[derive(Clone, Copy, ValueEnum)]
enum UnitWord {
    Node,
    Entity,
    Example,
}

pub(crate) fn run(verb: Verb) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::Epsilon(args) => ("privacy epsilon", epsilon(&args)),
        Verb::Plan(args) => ("privacy plan", plan(&args)),
        Verb::Ledger(operator) => ("privacy ledger", ledger(&operator)),
        Verb::Describe { manifest } => ("privacy describe", describe(&manifest)),
    }
}

fn epsilon(args: &EpsilonArgs) -> Result<Answer, Failure> {
    let (word, accountant) = args.accountant.of();
    let gaussian = Gaussian::new(args.noise_multiplier, args.sampling_rate, args.rounds).or_usage()?;
    let epsilon = accountant::epsilon(accountant, &gaussian, args.delta).or_usage()?;
    // The coordinator knows who was sampled, so sampling hides nobody from it.
    let coordinator = accountant::epsilon(accountant, &gaussian.seen_by(Observer::Coordinator), args.delta).or_usage()?;
    let mut text = format!("epsilon = {epsilon:.4} at delta = {:e}, by {word}", args.delta);
    if args.sampling_rate < 1.0 {
        text.push_str(&format!("\nagainst a coordinator, which knows who took part: epsilon = {coordinator:.4}"));
    }
    let data = json!({"epsilon": epsilon, "delta": args.delta, "accountant": word, "epsilon_coordinator": coordinator});
    Ok(Answer::new(data, text))
}

fn plan(args: &PlanArgs) -> Result<Answer, Failure> {
    let unit = match args.unit {
        UnitWord::Node => Unit::Node,
        UnitWord::Entity => Unit::Entity,
        UnitWord::Example => Unit::Example,
    };
    let profile = match args.profile {
        ProfileWord::HonestButCurious => secagg::Profile::Curious,
        ProfileWord::SemiMalicious => secagg::Profile::SemiMalicious,
    };
    let rate = |what: &str, share: f64| {
        secagg::Rate::from_share(share).ok_or_else(|| Failure::usage(format!("--{what}: {share} is not a share from 0 to below 1")))
    };
    let (dropout, corruption) = (rate("dropout", args.dropout)?, rate("corruption", args.corruption)?);
    let request = Request {
        unit,
        trust: Trust::Distributed,
        epsilon: args.epsilon,
        delta: args.delta,
        rounds: args.rounds,
        cohort: args.cohort,
        dropout: args.dropout,
        corruption: args.corruption,
        dimension: args.dimension,
        clip: args.clip,
        bits: args.bits.map(Bits::new).transpose().or_usage()?,
        coordinates: Vec::new(),
        weighting: Weighting::Uniform,
        units_per_node: if unit == Unit::Node { 1 } else { args.units_per_node },
        divisor: args.expected_units.unwrap_or(f64::from(args.cohort) * 100.0),
    };
    let infeasible = |why: String| Failure::new(Exit::Refused, why).hint("change what it names, and plan again");
    let plan = Plan::solve(&request).map_err(|fault| infeasible(fault.to_string()))?;
    let graph = secagg::Plan::new(args.cohort, dropout, corruption, profile, plan.parameters.minimum)
        .map_err(|fault| infeasible(fault.to_string()))?;
    let (p, forecast) = (&plan.parameters, &plan.forecast);
    let data = json!({
        "noise_multiplier": plan.noise_multiplier,
        "clip": plan.clip,
        "bits": p.bits.get(),
        "scale": p.grid() * plan.clip,
        "local_sigma": f64::from(p.sigma) * p.grid() * plan.clip,
        "neighbours": graph.degree(),
        "threshold": graph.threshold(),
        "minimum": p.minimum,
        "colluders": p.colluders,
        "epsilon_coordinator": plan.epsilon_coordinator,
        "epsilon_outsider": plan.epsilon_outsider,
        "delta": plan.delta,
        "rho_round": plan.rho_round,
        "rho_run": plan.rho_run,
        "noise_to_clip": forecast.noise_to_clip,
        "signal_to_noise_round": forecast.signal_to_noise_round,
        "signal_to_noise_run": forecast.signal_to_noise_run,
        "noise_per_coordinate": forecast.noise_per_coordinate,
        "wraps_per_round": forecast.wraps_per_round,
        "statement": statement(&plan.statement()),
    });
    let verdict = if forecast.noise_to_clip > 1.0 {
        "a round's update is mostly noise: more nodes, fewer parameters, fewer rounds or a larger epsilon would help"
    } else {
        "a round's update is mostly signal, if updates are about as long as the clip norm"
    };
    let text = format!(
        "{}\n\nnoise multiplier {:.3}, {} bits an element, sigma of a share {} grid units\n{} neighbours each, {} shares open a secret, \
         at least {} of {} nodes in a sum\n\nforecast: the noise is {:.3} times as long as the clip norm; signal to noise {:.3} in a round, at \
         best {:.3} in the run\n{verdict}",
        plan.statement(),
        plan.noise_multiplier,
        p.bits.get(),
        p.sigma,
        graph.degree(),
        graph.threshold(),
        p.minimum,
        p.nodes,
        forecast.noise_to_clip,
        forecast.signal_to_noise_round,
        forecast.signal_to_noise_run,
    );
    Ok(Answer::new(data, text))
}

fn statement(statement: &Statement) -> serde_json::Value {
    json!({
        "unit": statement.unit.word(),
        "adjacency": statement.adjacency,
        "mechanism": statement.mechanism,
        "epsilon_coordinator": statement.epsilon_coordinator,
        "epsilon_outsider": statement.epsilon_outsider,
        "delta": statement.delta,
        "assumptions": statement.assumptions,
        "not_covered": statement.not_covered,
    })
}

fn ledger(operator: &Operator) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_fail(Exit::Internal)?;
    let ledgers: Vec<LedgerView> = runtime.block_on(async {
        let mut remote = operator.connect().await?;
        view(&remote.client.show_ledgers(v1::ListRequest {}).await.map_err(|s| refused(&s))?.into_inner())
    })?;
    let rows: Vec<_> = ledgers
        .iter()
        .map(|l| {
            let of = |epsilon: f64| format!("{epsilon:.3}");
            let unit = l.key.as_ref().map_or_else(|| l.unit.to_string(), |key| format!("{} by {key}", l.unit));
            vec![unit, of(l.epsilon), format!("{:e}", l.delta), of(l.epsilon_spent), of(l.epsilon_held)]
        })
        .collect();
    let text = if rows.is_empty() {
        "no unit has a budget; write [budgets.example] into coordinator.toml".to_owned()
    } else {
        table(&["unit", "epsilon", "delta", "spent", "spent or reserved"], &rows)
    };
    Ok(Answer::new(json!({"ledgers": ledgers}), text))
}

fn describe(path: &std::path::Path) -> Result<Answer, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::new(Exit::NotFound, format!("{}: {e}", path.display())))?;
    let manifest = Manifest::parse(&bytes)?;
    let text = format!("{} {}\n{}", manifest.model_name, manifest.version, manifest.privacy);
    Ok(Answer::new(json!(manifest.privacy), text))
}
