//! Work that can be interrupted.
//!
//! SIGINT, SIGTERM and SIGHUP end the work in order: its future is dropped, whatever feeds a
//! thread says so, the threads drop what they had staged, and the caller gets
//! [`Error::Interrupted`].

use crate::archive::source::Cancel;
use crate::{Error, Result};
use std::future::Future;
use std::thread::{Builder, Scope, ScopedJoinHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Run to the end, or to the first signal, on a runtime of one thread.
pub(crate) fn run<T>(main: impl Future<Output = Result<T>>) -> Result<T> {
    let failed = |source| Error::Io {
        what: "cannot start the network part".to_owned(),
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        let mut signals = Vec::new();
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            signals.push(signal(kind).map_err(failed)?);
        }
        tokio::select! {
            biased;
            () = any(&mut signals) => Err(Error::Interrupted),
            result = main => result,
        }
    })
}

/// Start a thread; where none can be had, that is an error like others.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work)
        .map_err(no_thread)
}

/// There is no thread to be had.
pub(crate) fn no_thread(source: std::io::Error) -> Error {
    Error::Io {
        what: "cannot start a thread".to_owned(),
        source,
    }
}

/// Run blocking work to its end; a signal cancels it, and it is waited for.
pub(crate) fn threaded<T: Send>(
    cancel: &Cancel,
    main: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    std::thread::scope(|scope| {
        let (tell, told) = tokio::sync::oneshot::channel();
        spawn(scope, "work", move || {
            // Nobody to tell: it was interrupted.
            let _ = tell.send(main());
        })?;
        let result = run(async {
            told.await
                .unwrap_or_else(|_| Err(Error::Unsupported("the work broke down".to_owned())))
        });
        cancel.set();
        result
    })
}

/// The first of the signals.
async fn any(signals: &mut [Signal]) {
    std::future::poll_fn(|cx| {
        if signals.iter_mut().any(|s| s.poll_recv(cx).is_ready()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}
