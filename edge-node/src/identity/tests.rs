//! Enrolment against a real server, and what each crash leaves.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use sapwood_failpoint::Hook;
use sapwood_protocol::membership::Token;

use super::*;
use crate::{
    link::{Link, channel},
    testing::{Counting, World, node},
};

struct Site {
    world: Arc<World>,
    address: String,
    dir: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let world = World::new();
        let address = format!("localhost:{}", world.listen(false).await.port());
        Self { world, address, dir: tempfile::tempdir().unwrap() }
    }
    fn open(&self) -> Result<Found, IdentityError> {
        open(self.dir.path(), &node(), &self.world.trust())
    }
    async fn start(&self, token: Option<Token>) -> Result<Enrolled, IdentityError> {
        match self.open()? {
            Found::Enrolled(enrolled) => Ok(enrolled),
            Found::Enrolling(keys) => enroll(keys, &node(), &self.address, &self.world.trust(), token).await,
        }
    }
    fn token(&self) -> Option<Token> {
        Some(self.world.token.clone())
    }
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn an_enrolled_node_stays_one_without_token_or_network() {
    let site = Site::new().await;
    site.world.script(|script| script.pending = 2);
    let first = site.start(site.token()).await.unwrap();
    assert_eq!(site.world.script(|script| script.enrolled.len()), 3, "it asks until there is an answer");
    assert_eq!(site.names(), [IDENTITY, MEMBERSHIP, TLS]);
    for name in site.names() {
        assert_eq!(fs::metadata(site.dir.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let Found::Enrolled(again) = site.open().unwrap() else { panic!("enrolled once is enrolled") };
    assert_eq!(again.identity().key(), first.identity().key());
    assert_eq!(again.membership(), first.membership());
    assert_eq!(again.credentials().chain(), first.credentials().chain());
}

/// A kill at each step of the enrolment; the next start goes on with the same keys, and needs the token only if
/// the request was not written yet.
#[tokio::test]
async fn a_crash_at_any_step_of_the_enrolment_is_gone_on_from() {
    use crate::points::REQUEST_STORED;
    for (point, needs_token) in [(KEYS_STORED, true), (REQUEST_STORED, false), (MEMBERSHIP_STORED, false), (ENROLLED, false)] {
        let site = Site::new().await;
        let killed = Hook::kill_at(point.name(), 1).scope(site.start(site.token())).await;
        assert!(matches!(killed, Err(IdentityError::Killed(_))), "{point}");
        let key = fs::read(site.dir.path().join(IDENTITY)).unwrap();
        if needs_token {
            assert!(matches!(site.start(None).await, Err(IdentityError::NoToken)), "{point}");
        }
        site.start(if needs_token { site.token() } else { None }).await.unwrap();
        assert_eq!(fs::read(site.dir.path().join(IDENTITY)).unwrap(), key, "{point}");
        let requests = site.world.script(|script| script.enrolled.clone());
        assert!(requests.windows(2).all(|pair| pair[0] == pair[1]), "{point}: the same request each time");
        let Found::Enrolled(_) = site.open().unwrap() else { panic!("{point}") };
        assert_eq!(site.names(), [IDENTITY, MEMBERSHIP, TLS], "{point}");
    }
}

#[tokio::test]
async fn a_state_cut_in_half_is_refused_and_left_as_it_is() {
    let site = Site::new().await;
    site.start(site.token()).await.unwrap();
    for missing in [IDENTITY, MEMBERSHIP] {
        let kept = fs::read(site.dir.path().join(missing)).unwrap();
        fs::remove_file(site.dir.path().join(missing)).unwrap();
        let before = site.names();
        let error = site.open().err().unwrap();
        assert!(matches!(&error, IdentityError::HalfWritten { missing: m, .. } if *m == missing), "{error}");
        assert_eq!(site.names(), before);
        fs::write(site.dir.path().join(missing), kept).unwrap();
    }
    for name in [IDENTITY, MEMBERSHIP, TLS] {
        let kept = fs::read(site.dir.path().join(name)).unwrap();
        fs::write(site.dir.path().join(name), &kept[..kept.len() / 2]).unwrap();
        let error = site.open().err().unwrap();
        assert!(matches!(&error, IdentityError::Damaged { path, .. } if path.ends_with(name)), "{name}: {error}");
        fs::write(site.dir.path().join(name), kept).unwrap();
    }
    assert!(matches!(site.open().unwrap(), Found::Enrolled(_)));
}

#[tokio::test]
async fn another_nodes_folder_is_refused() {
    let site = Site::new().await;
    site.start(site.token()).await.unwrap();
    let error = open(site.dir.path(), &"store-018".parse().unwrap(), &site.world.trust()).err().unwrap();
    assert!(matches!(error, IdentityError::OtherNode { .. }), "{error}");
    // The keys of another node do not fit this one's membership.
    let other = Site::new().await;
    let _ = other.open();
    fs::copy(other.dir.path().join(IDENTITY), site.dir.path().join(IDENTITY)).unwrap();
    assert!(matches!(site.open(), Err(IdentityError::Damaged { .. })));
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_a_right_one_helps_later() {
    let site = Site::new().await;
    let wrong = Token::generate(&mut Counting(100));
    let error = site.start(Some(wrong)).await.err().unwrap();
    assert!(matches!(error, IdentityError::Refused { .. }), "{error}");
    site.start(site.token()).await.unwrap();
}

/// The coordinator cannot put an authority of its own in the operator's place.
#[tokio::test]
async fn a_membership_of_another_authority_is_refused() {
    let site = Site::new().await;
    let mut trust = site.world.trust();
    trust.authority = World::new().authority.key();
    let Found::Enrolling(keys) = open(site.dir.path(), &node(), &trust).unwrap() else { panic!() };
    let error = enroll(keys, &node(), &site.address, &trust, site.token()).await.err().unwrap();
    assert!(matches!(error, IdentityError::Answer(_)), "{error}");
    assert!(!site.names().contains(&TLS.to_owned()));
}

/// A fresh key and certificate take the old ones' place in one step; a crash right after it finds the new ones.
#[tokio::test]
async fn renewal_switches_key_and_certificate_together() {
    let site = Site::new().await;
    site.world.script(|script| script.validity = (2000, 2001));
    let enrolled = site.start(site.token()).await.unwrap();
    assert!(enrolled.certified().renew_at() < crate::clock::now(), "it is past two thirds of its life");
    let old = enrolled.credentials();

    let channel = channel(&site.address, site.world.ca.pem().as_bytes(), None).await.unwrap();
    let (current, link) = Link::new();
    current.send_replace(Some(sapwood_proto::v1::node_client::NodeClient::new(channel)));
    let killed = Hook::kill_at(RENEWED.name(), 1).scope(renew(&enrolled, &node(), &link)).await;
    assert!(killed.is_err());
    let Found::Enrolled(restarted) = site.open().unwrap() else { panic!() };
    assert_ne!(restarted.credentials().chain(), old.chain());
    renew(&restarted, &node(), &link).await.unwrap();
    let now = crate::clock::now();
    assert!(restarted.certified().renew_at() > now && restarted.certified().not_after() > now);
}
