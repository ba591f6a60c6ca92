use super::*;
use crate::{Blame, Fault};

/// The shortest file that runs.
const LEAST: &str = "[model]\nfile = \"m.onnx\"\n[secure_aggregation]\nmode = \"off\"\n[privacy]\nunit = \"none\"\n";

fn refusal(text: &str) -> String {
    let fault: Fault = Spec::parse(text).expect_err(text);
    assert_eq!(fault.blame(), Blame::Caller);
    fault.to_string()
}

#[test]
fn defaults_run() {
    let spec = Spec::parse(LEAST).unwrap();
    assert_eq!(spec.cohort.minimum, spec.cohort.size);
    assert_eq!(spec.model.file, "m.onnx");
    let smaller = Spec::parse(&format!("{LEAST}[cohort]\nsize = 3\n")).unwrap();
    assert_eq!((smaller.cohort.size, smaller.cohort.minimum), (3, 3));
}

/// What protects is on unless it was turned off in so many words, and every print says what is lost.
#[test]
fn privacy_is_on_unless_it_is_turned_off() {
    let spec = Spec::parse("[model]\nfile = \"m.onnx\"\n[privacy]\nexpected_units = 1000\n").unwrap();
    assert!(spec.is_secure() && spec.is_private());
    assert_eq!((spec.privacy.unit, spec.strategy.weights, spec.cohort.minimum), (PrivacyUnit::Example, Weights::Uniform, 9));
    assert!(spec.privacy_line().contains("against the coordinator, too"), "{}", spec.privacy_line());
    let nothing = refusal("[model]\nfile = \"m.onnx\"\n");
    assert!(nothing.starts_with("privacy.expected_units") && nothing.contains("unit = \"none\""), "{nothing}");

    assert!(Spec::parse(LEAST).unwrap().privacy_line().contains("sees each update in clear"));
    let masked = Spec::parse(&LEAST.replace("\"off\"", "\"on\"")).unwrap();
    assert!(masked.privacy_line().contains("exact sum of each cohort"), "{}", masked.privacy_line());
    let central = LEAST.replace("unit = \"none\"", "unit = \"node\"\nmechanism = \"central\"");
    let line = Spec::parse(&format!("{central}[cohort]\nsize = 10\n")).unwrap().privacy_line();
    assert!(line.contains("the coordinator is trusted and sees each update in clear"), "{line}");
    for (text, key) in [
        (LEAST.replace("\"off\"", "\"secagg+\""), "secure_aggregation.mode"),
        (LEAST.replace("\"none\"", "\"customer\""), "privacy.unit"),
        // A share of the noise alone protects nobody.
        (LEAST.replace("\"none\"", "\"node\""), "secure_aggregation.mode"),
        (LEAST.replace("\"off\"", "\"on\"\ndropout = 0.95"), "secure_aggregation.dropout"),
        (LEAST.replace("\"off\"", "\"on\"") + "[cohort]\nsize = 2\n", "secure_aggregation"),
        (LEAST.replace("\"off\"", "\"on\"") + "[cohort]\nsize = 5\nminimum = 6\n", "cohort.minimum"),
    ] {
        let refused = refusal(&text);
        assert!(refused.starts_with(key), "{refused}");
    }
}

/// What a budget per example or entity rules out is refused by name, not ignored.
#[test]
fn a_budget_within_nodes_is_one_step_a_round() {
    let file = |more: &str| format!("[model]\nfile = \"m\"\n{more}");
    let units = "[privacy]\nexpected_units = 100\n";
    Spec::parse(&file(units)).unwrap();
    let entities = Spec::parse(&file(&format!("{units}unit = \"entity\"\nentity_key = \"customer\"\n"))).unwrap();
    assert_eq!(entities.privacy.entity_key.as_deref(), Some("customer"));
    for (more, key) in [
        ("[train]\noptimizer = \"adam\"\n", "train.optimizer"),
        ("[train]\nmomentum = 0.9\n", "train.optimizer"),
        ("[train]\nlocal_epochs = 2\n", "train.local_epochs"),
        ("[strategy]\nweights = \"examples\"\n", "strategy.weights"),
        ("[cohort]\nminimum = 10\n", "cohort.minimum"),
    ] {
        let refused = refusal(&file(&format!("{units}{more}")));
        assert!(refused.starts_with(key), "{refused}");
    }
    for (privacy, key) in [
        ("unit = \"entity\"\nexpected_units = 10", "privacy.entity_key"),
        ("unit = \"entity\"\nexpected_units = 10\nentity_key = \"\"", "privacy.entity_key"),
        ("unit = \"entity\"\nexpected_units = 10\nentity_key = \"../secret\"", "privacy.entity_key"),
        ("entity_key = \"customer\"\nexpected_units = 10", "privacy.entity_key"),
        ("epsilon = 0.0\nexpected_units = 10", "privacy.epsilon"),
        ("delta = 1.0\nexpected_units = 10", "privacy.delta"),
        ("expected_units = 0.5", "privacy.expected_units"),
        ("clip_quantile = 1.0\nexpected_units = 10", "privacy.clip_quantile"),
    ] {
        let refused = refusal(&file(&format!("[privacy]\n{privacy}\n")));
        assert!(refused.starts_with(key), "{refused}");
    }
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    for (line, path, nearest) in [
        ("[train]\nepochs = 3\n", "train.epochs", "local_epochs"),
        ("[cohort]\nminimun = 3\n", "cohort.minimun", "minimum"),
        ("[release.gates]\nmin_acuracy = 0.5\n", "release.gates.min_acuracy", "min_accuracy"),
        ("[deadline]\nround = \"1m\"\n", "deadline", "deadlines"),
        ("[data]\nscheme = \"x\"\n", "data.scheme", "schema"),
    ] {
        let text = refusal(&format!("{LEAST}{line}"));
        assert!(text.starts_with(&format!("{path}: ")) && text.contains(&format!("`{nearest}`")), "{text}");
    }
}

#[test]
fn a_value_out_of_range_is_named() {
    for (section, line) in [
        ("train", "rounds = 0"),
        ("train", "lr = 0.0"),
        ("train", "lr = nan"),
        ("train", "lr = inf"),
        ("train", "warmup = 11"),
        ("train", "momentum = 1.0"),
        ("train", "nesterov = true"),
        ("train", "weight_decay = -0.1"),
        ("train", "batch = -1"),
        ("train", "optimizer = \"lion\""),
        ("strategy", "kind = \"fedprox\""),
        ("strategy", "server_lr = -1.0"),
        ("strategy", "example_cap = 0"),
        ("cohort", "size = 0"),
        ("cohort", "minimum = 11"),
        ("cohort", "minimum = 0"),
        ("cohort", "over_selection = -0.5"),
        ("deadlines", "round = \"soon\""),
        ("deadlines", "select = \"0s\""),
        ("deadlines", "exchange = \"0s\""),
        ("deadlines", "attempts = 0"),
        ("evaluate", "every = 0"),
        ("release", "rings = []"),
        ("release", "rings = [\"lab\", \"lab\"]"),
        ("release", "use_case = \" \""),
    ] {
        let text = refusal(&format!("{LEAST}[{section}]\n{line}\n"));
        let key = format!("{section}.{}", line.split_once(' ').unwrap().0);
        assert!(text.starts_with(&key), "{line}: {text}");
    }
    let gate = refusal(&format!("{LEAST}[release.gates]\nmin_accuracy = 0.9\n"));
    assert!(gate.contains("evaluate.data"), "{gate}");
    let both = refusal(&format!("{LEAST}[train]\noptimizer = \"adam\"\nmomentum = 0.9\n"));
    assert!(both.contains("beta1"), "{both}");
}

/// A grid that is too coarse says what makes it feasible.
#[test]
fn an_infeasible_grid_is_refused_with_the_way_out() {
    let bits = |bits: u32| LEAST.replace("mode = \"off\"", &format!("mode = \"off\"\nbits = {bits}"));
    let text = refusal(&bits(16));
    assert!(text.starts_with("secure_aggregation.bits") && text.contains("at least 17 bits"), "{text}");
    Spec::parse(&bits(17)).unwrap();
    assert!(refusal(&bits(7)).contains("8 to 32"));
    let clip = refusal(&LEAST.replace("unit = \"none\"", "unit = \"none\"\nclip = 0.0"));
    assert!(clip.starts_with("privacy.clip"), "{clip}");
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    let text = refusal("[model\nfile = 1");
    assert!(text.contains("run.toml") && text.contains("line 1"), "{text}");
    assert!(refusal("model = 3").contains("section"));
}

#[test]
fn a_spec_survives_the_store() {
    let text = format!("{LEAST}[evaluate]\ndata = \"d\"\n[release.gates]\nmax_p99 = \"5ms\"\nmin_accuracy = 0.5\n");
    let spec = Spec::parse(&text).unwrap();
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    let toml = toml::to_string(&spec).unwrap();
    assert_eq!(Spec::parse(&toml).unwrap(), spec);
}

#[test]
fn over_selection_rounds_up() {
    let asked = |size, over_selection| CohortSpec { size, over_selection, ..CohortSpec::default() }.asked();
    assert_eq!([asked(10, 0.0), asked(10, 0.2), asked(10, 0.25), asked(1, 0.01), asked(3, 1.0)], [10, 12, 13, 2, 6]);
}

/// A rate falls from round to round, but never to nothing; a spec of before there were schedules is read as one without.
#[test]
fn a_schedule_says_the_rate_of_each_round() {
    let spec = Spec::parse(&format!("{LEAST}[train]\nrounds = 4\nlr = 1.0\nschedule = \"linear\"\nwarmup = 1\n")).unwrap();
    let rates: Vec<f64> = (1..=4).map(|round| crate::round::TrainTerms::of(&spec, round).lr).collect();
    assert_eq!(rates, [0.5, 1.0, 1.0 - 1.0 / 3.0, 1.0 - 2.0 / 3.0]);
    for (line, key) in [
        ("schedule = \"stairs\"", "train.schedule"),
        ("schedule = \"step:0:0.5\"", "train.schedule"),
        ("rounds = 100\nschedule = \"step:1:0.001\"", "train.schedule"),
    ] {
        let refused = refusal(&format!("{LEAST}[train]\n{line}\n"));
        assert!(refused.starts_with(key), "{refused}");
    }
    let mut stored = serde_json::to_value(Spec::parse(LEAST).unwrap()).unwrap();
    let train = stored["train"].as_object_mut().unwrap();
    assert!(train.remove("schedule").is_some() && train.remove("warmup").is_some());
    let old: Spec = serde_json::from_value(stored).unwrap();
    assert_eq!(old, Spec::parse(LEAST).unwrap());
}
