//! The operator's rules, and a ledger that forgets nothing.

use super::*;
use sapwood_protocol::{
    round::{NoiseTerms, SecureTerms, plan},
    spec::Spec,
};

use crate::train::tests::terms;

const RUN: &str = "[model]\nfile = \"m\"\n[cohort]\nsize = 6\n[privacy]\nexpected_units = 600\nepsilon = 8.0\n";

/// Terms under a budget for each example, or without one.
fn asked(n: u8, private: bool) -> Terms {
    let spec = Spec::parse(RUN).unwrap();
    let mut terms = terms(b"model", 40, 0.05);
    (terms.session, terms.size, terms.minimum) = (SessionId::new([n; 32]), 6, spec.cohort.minimum);
    terms.secure = Some(SecureTerms::of(&spec));
    terms.noise = private.then(|| NoiseTerms::of(&spec, &plan(&spec, 40).unwrap()));
    terms
}

async fn open(dir: &Path, rules: &Rules) -> Books {
    Books::open(Store::open(dir).await.unwrap(), rules).await.unwrap()
}

fn why(declined: Result<(), Decline>) -> String {
    match declined.unwrap_err() {
        Decline::Policy { why } => why,
        other => panic!("{other}"),
    }
}

/// What is off is off because the operator wrote it; each rule refuses by name.
#[tokio::test]
async fn each_rule_refuses_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let books = open(dir.path(), &Rules::default()).await;
    books.look(&asked(1, true)).await.unwrap();
    assert!(why(books.look(&asked(1, false)).await).contains("demands a privacy budget"));
    let mut clear = asked(1, false);
    clear.secure = None;
    assert!(why(books.look(&clear).await).contains("demands secure aggregation"));
    drop(books);
    for (rules, word) in [
        (Rules { minimum_cohort: 7, ..Rules::default() }, "minimum cohort"),
        (Rules { most_clip: 0.5, ..Rules::default() }, "clip norm"),
        (Rules { budgets: BTreeMap::new(), ..Rules::default() }, "no budget for the unit"),
        (Rules { models: Some(["sha256:00".to_owned()].into()), ..Rules::default() }, "does not allow the model"),
        (Rules { corruption: 0.9, ..Rules::default() }, "corruption"),
    ] {
        let books = open(dir.path(), &rules).await;
        let refused = why(books.look(&asked(1, true)).await);
        assert!(refused.contains(word), "{refused}");
    }
}

/// A session is charged once, on disk before this says so; a process that died has no second input for it; and the budget ends.
#[tokio::test]
async fn a_session_is_charged_once_and_the_budget_ends() {
    let dir = tempfile::tempdir().unwrap();
    let books = open(dir.path(), &Rules::default()).await;
    books.charge(&asked(1, true)).await.unwrap();
    drop(books);
    let books = open(dir.path(), &Rules::default()).await;
    assert!(why(books.charge(&asked(1, true)).await).contains("before it restarted"));
    let mut sessions = 1;
    let refused = loop {
        match books.charge(&asked(sessions + 1, true)).await {
            Ok(()) => sessions += 1,
            refused => break why(refused),
        }
    };
    assert!(refused.contains("budget is spent"), "{refused}");
    // The operator sees the same, while the node runs.
    let account = account(dir.path(), &Rules::default()).await.unwrap();
    let example = account.budgets.iter().find(|spent| spent.unit == PrivacyUnit::Example).unwrap();
    assert_eq!((example.sessions, account.without_noise), (usize::from(sessions), 0));
    assert!(example.epsilon_spent.is_some_and(|spent| spent > 8.0 && spent <= 10.0), "{example:?}");
    // Eleven rounds and their spares of epsilon 8 fit a budget of 10, and not twice as many.
    assert!((11..22).contains(&sessions), "{sessions}");
    drop(books);
    let books = open(dir.path(), &Rules::default()).await;
    assert!(why(books.look(&asked(200, true)).await).contains("budget is spent"), "a restart forgets nothing");
}

/// Without noise the same input again is no news.
#[tokio::test]
async fn what_is_allowed_without_noise_may_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let rules = Rules { allow_no_noise: true, ..Rules::default() };
    let books = open(dir.path(), &rules).await;
    books.charge(&asked(1, false)).await.unwrap();
    drop(books);
    let books = open(dir.path(), &rules).await;
    books.charge(&asked(1, false)).await.unwrap();
    // But what left without noise is not charged as noised.
    assert!(books.charge(&asked(1, true)).await.is_err());
}

/// A run must tell entities apart as the node's operator does: a key of the run's choice could split what the budget protects.
#[tokio::test]
async fn entities_are_those_of_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let terms = |key: &str| {
        let text = RUN.replace("epsilon = 8.0", &format!("epsilon = 8.0\nunit = \"entity\"\nentity_key = {key:?}"));
        let spec = Spec::parse(&text).unwrap();
        Terms { noise: Some(NoiseTerms::of(&spec, &plan(&spec, 40).unwrap())), ..asked(1, true) }
    };
    let budget = BudgetTerms { key: Some("customer".into()), epsilon: 10.0, delta: 1e-5 };
    let rules = Rules { budgets: [(PrivacyUnit::Entity, budget)].into(), ..Rules::default() };
    let books = open(dir.path(), &rules).await;
    let refused = why(books.look(&terms("row")).await);
    assert!(refused.contains("`customer`") && refused.contains("`row`"), "{refused}");
    books.charge(&terms("customer")).await.unwrap();
    drop(books);
    // Found by review: another column, and what customers had spent was said to be what households had.
    let budget = BudgetTerms { key: Some("household".into()), epsilon: 10.0, delta: 1e-5 };
    let rules = Rules { budgets: [(PrivacyUnit::Entity, budget)].into(), ..Rules::default() };
    let refused = why(open(dir.path(), &rules).await.look(&terms("household")).await);
    assert!(refused.contains("`customer`"), "{refused}");
}
