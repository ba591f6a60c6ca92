//! ONNX Runtime for Sapwood: found or provisioned, loaded once, telemetry off.
//!
//! The library is not linked: it is a file that [`install`] puts into a cache after checking its
//! SHA-256 against [`lock`], that [`find`](Runtime::find) looks up in a fixed order of places, and
//! that [`Runtime::load`] opens. A [`Session`] then runs one model.
//!
//! ```no_run
//! use sapwood_runtime::{Runtime, SessionOptions, disable_telemetry};
//!
//! disable_telemetry(); // the first statement of `main`
//! let runtime = Runtime::load(None)?;
//! let model = std::fs::read("model.onnx").expect("a model");
//! let session = runtime.session(&model, SessionOptions::default())?;
//! println!("{} reads {:?}", runtime.version(), session.inputs());
//! # Ok::<(), sapwood_runtime::RuntimeError>(())
//! ```
//!
//! Official builds from 1.29 on report to their vendor unless `ORT_DISABLE_TELEMETRY` is set
//! before the library starts; the pinned 1.28.0 is the last without that code. [`Runtime::load`]
//! refuses a newer library while the variable is not set.

mod class;
mod environment;
mod error;
mod fetch;
mod find;
mod install;
pub mod lock;
mod session;
mod telemetry;
mod view;

pub use class::host_class;
pub use environment::Runtime;
pub use error::{Place, RuntimeError};
pub use fetch::download;
pub use find::{Found, Search, default_cache};
pub use install::{InstallOptions, Installed, Progress, install};
pub use lock::Triple;
pub use session::{IoInfo, Session, SessionOptions};
pub use telemetry::{disable_telemetry, telemetry_disabled};
pub use view::{Input, Output, View};
