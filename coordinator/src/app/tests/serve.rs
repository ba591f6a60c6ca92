//! A real process, as far as that goes in one: keys from files, SQLite, a socket.

use std::net::SocketAddr;

use tokio::sync::oneshot;

use crate::{
    Config, CoordinatorError,
    clock::{Clock, SystemClock},
    pki::{FoundOptions, found},
    serve,
};

fn deployment() -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let options = FoundOptions::local("trial".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let founded = found(&folder.path().join("trial"), &options, SystemClock.now()).unwrap();
    let config = Config::read(&founded.config()).unwrap();
    (folder, config)
}

/// Serves until the sender is used or dropped.
async fn start(config: &Config) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), CoordinatorError>>) {
    let (ready, listening) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let config = config.clone();
    let served = tokio::spawn(serve(config, |address| ready.send(address).unwrap(), async move { drop(stopped.await) }));
    (listening.await.unwrap(), stop, served)
}

#[tokio::test]
async fn it_serves_what_was_founded_and_goes_down_in_good_order() {
    let (_folder, config) = deployment();
    let (address, stop, served) = start(&config).await;
    tokio::net::TcpStream::connect(address).await.unwrap();
    // One coordinator at a time.
    let second = serve(config.clone(), |_| panic!("it must not listen"), std::future::pending()).await.unwrap_err();
    assert!(matches!(second, CoordinatorError::InUse { .. }), "{second}");
    drop(stop);
    served.await.unwrap().unwrap();
    // And again, on the same data.
    let (_, stop, served) = start(&config).await;
    drop(stop);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_named_before_anything_is_written() {
    let (_folder, config) = deployment();
    let refused = async |change: fn(&mut Config)| {
        let mut config = config.clone();
        change(&mut config);
        let error = serve(config.clone(), |_| panic!("it must not listen"), std::future::pending()).await.unwrap_err();
        assert!(!config.data_dir.join("coordinator.db").exists());
        error.to_string()
    };
    let error = refused(|config| config.population = "other".parse().unwrap()).await;
    assert!(error.contains("trial") && error.contains("other"), "{error}");
    let error = refused(|config| config.keys.release_key.clone_from(&config.keys.ca_key.with_file_name("ca.pem"))).await;
    assert!(error.contains("ca.pem"), "{error}");
    let error = refused(|config| config.keys.trust = "missing.toml".into()).await;
    assert!(error.contains("missing.toml"), "{error}");
}
