//! What passes is waited for.

use crate::fake::{Fake, Reply, Stop};
use crate::lab::*;
use rcon_image::{Patience, Split};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let fake = Fake::start();
    let image = Image::noisy(1_000_000);
    image.serve(&fake, "x", "latest");
    let path = image.blob_path("x", 0);
    let at = path.clone();
    fake.on_request(move |request, reply| match request.before {
        n if request.path == at && n < 3 => reply.stopping(300_000, Stop::Cut),
        _ => reply,
    });
    let lab = Lab::new();
    let seen = Recorder::default();
    lab.pull_with(&format!("{}/x", fake.address), &lab.options(), &seen)
        .unwrap();
    let requests = fake.requests(&path);
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[0].header("range"), None);
    assert_eq!(requests[2].header("range"), Some("bytes=600000-"));
    assert!(seen.text().contains("Retry"), "{}", seen.text());
    lab.assert_no_leftovers();
}

#[test]
fn a_server_without_ranges_is_listened_to_again() {
    let fake = Fake::start();
    let image = Image::noisy(500_000);
    image.serve(&fake, "x", "latest");
    let (path, blob) = (image.blob_path("x", 0), image.blobs[0].clone());
    let at = path.clone();
    fake.on_request(move |request, reply| {
        if request.path != at {
            return reply;
        }
        let whole = Reply::new(200, blob.clone());
        if request.before == 0 {
            whole.stopping(123_457, Stop::Cut)
        } else {
            whole
        }
    });
    Lab::new().pull(&format!("{}/x", fake.address)).unwrap();
    assert_eq!(fake.requests(&path).len(), 2);
}

#[test]
fn a_stall_ends_and_the_rest_comes_over_another_connection() {
    let fake = Fake::start();
    let image = Image::noisy(200_000);
    image.serve(&fake, "x", "latest");
    let at = image.blob_path("x", 0);
    fake.on_request(move |request, reply| match request.before {
        0 if request.path == at => reply.stopping(70_000, Stop::Stall(Duration::from_secs(20))),
        _ => reply,
    });
    let start = Instant::now();
    Lab::new().pull(&format!("{}/x", fake.address)).unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_registry_that_keeps_cutting_is_given_up() {
    let fake = Fake::start();
    let image = Image::noisy(200_000);
    image.serve(&fake, "x", "latest");
    let at = image.blob_path("x", 0);
    fake.on_request(move |request, reply| {
        if request.path == at {
            reply.stopping(10, Stop::Cut)
        } else {
            reply
        }
    });
    let lab = Lab::new();
    let text = lab.refused(&format!("{}/x", fake.address));
    assert!(text.contains("copying layer sha256:"), "{text}");
    assert!(text.contains("connection lost"), "{text}");
}

#[test]
fn busy_servers_are_asked_again_when_they_say() {
    let fake = Fake::start();
    let image = Image::small();
    image.serve(&fake, "x", "latest");
    let blob = image.blob_path("x", 0);
    fake.on_request(
        move |request, reply| match (request.path.as_str(), request.before) {
            ("/v2/x/manifests/latest", 0) => {
                Reply::error(429, "TOOMANYREQUESTS", "slow down").with("Retry-After", "1")
            }
            ("/v2/x/manifests/latest", 1) => Reply::new(503, "<html>"),
            (path, 0) if path == blob => Reply::new(502, ""),
            _ => reply,
        },
    );
    let lab = Lab::new();
    let seen = Recorder::default();
    let start = Instant::now();
    lab.pull_with(&format!("{}/x", fake.address), &lab.options(), &seen)
        .unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(seen.text().matches("Retry").count(), 3, "{}", seen.text());
}

#[test]
fn but_not_for_ever_nor_for_an_hour() {
    let fake = Fake::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    fake.on_request(move |request, reply| {
        if !request.path.contains("manifests") {
            return reply;
        }
        count.fetch_add(1, Ordering::Relaxed);
        let busy = Reply::error(429, "TOOMANYREQUESTS", "pull rate limit");
        if request.path.contains("hour") {
            busy.with("Retry-After", "3600")
        } else {
            busy
        }
    });
    let lab = Lab::new();
    let start = Instant::now();
    let text = lab.refused(&format!("{}/x:hour", fake.address));
    assert!(text.contains("toomanyrequests: pull rate limit"), "{text}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    lab.refused(&format!("{}/x:busy", fake.address));
    assert_eq!(asked.load(Ordering::Relaxed), 5);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn slow_is_not_stalled() {
    let fake = Fake::start();
    let image = Image::small();
    image.serve(&fake, "x", "latest");
    let blob = image.blobs[0].clone();
    let at = image.blob_path("x", 0);
    // A few bytes at a time, by ranges that are honest but short.
    fake.on_request(move |request, reply| {
        if request.path == at && request.before < 2 {
            return reply.stopping(blob.len() / 3, Stop::Stall(Duration::from_millis(300)));
        }
        reply
    });
    Lab::new().pull(&format!("{}/x", fake.address)).unwrap();
}

/// A pull that goes over to pieces at once.
fn hasty() -> Patience {
    Patience {
        retries: 2,
        back_off: Duration::from_millis(10),
        split: Split {
            after: Duration::ZERO,
            slower_than: u64::MAX,
            least: 100_000,
            piece: 64 * 1024,
            at_once: 3,
        },
        ..Patience::default()
    }
}

/// The registry is slow: every answer stops for a moment after its first bytes.
fn slow(fake: &Fake, path: &str) {
    let at = path.to_owned();
    fake.on_request(move |request, reply| match request.before {
        0 if request.path == at => reply.stopping(100_000, Stop::Stall(Duration::from_millis(50))),
        // One piece is cut.
        3 if request.path == at => reply.stopping(1000, Stop::Cut),
        _ => reply,
    });
}

#[test]
fn a_large_blob_comes_in_pieces_where_the_network_is_slow() {
    let fake = Fake::start();
    let image = Image::noisy(1_000_000);
    image.serve(&fake, "x", "latest");
    let path = image.blob_path("x", 0);
    slow(&fake, &path);
    let lab = Lab::new();
    let name = format!("{}/x", fake.address);
    rcon_image::pull_with(
        &lab.store,
        &name,
        &lab.options(),
        &hasty(),
        &Recorder::default(),
    )
    .unwrap();
    let ranges: Vec<String> = fake
        .requests(&path)
        .iter()
        .filter_map(|r| r.header("range").map(str::to_owned))
        .collect();
    assert!(ranges.len() > 10, "{ranges:?}");
    assert!(ranges.iter().all(|r| !r.ends_with('-')), "{ranges:?}");
    lab.assert_no_leftovers();
}

#[test]
fn pieces_need_a_server_that_knows_ranges() {
    let fake = Fake::start();
    let image = Image::noisy(600_000);
    image.serve(&fake, "x", "latest");
    let path = image.blob_path("x", 0);
    let (at, blob) = (path.clone(), image.blobs[0].clone());
    fake.on_request(move |request, reply| match request.path == at {
        true => Reply::new(200, blob.clone()),
        false => reply,
    });
    let lab = Lab::new();
    let name = format!("{}/x", fake.address);
    rcon_image::pull_with(
        &lab.store,
        &name,
        &lab.options(),
        &hasty(),
        &Recorder::default(),
    )
    .unwrap();
    // The first, some pieces, and the whole again.
    assert!(fake.requests(&path).len() <= 5);
}

#[test]
fn the_next_process_goes_on_where_one_was_cut() {
    let fake = Fake::start();
    let image = Image::noisy(1_000_000);
    image.serve(&fake, "x", "latest");
    let path = image.blob_path("x", 0);
    let at = path.clone();
    fake.on_request(move |request, reply| match request.before {
        0 if request.path == at => reply.stopping(700_000, Stop::Cut),
        _ => reply,
    });
    let lab = Lab::new();
    let name = format!("{}/x", fake.address);
    let once = Patience {
        retries: 0,
        ..Patience::default()
    };
    let pull = || {
        rcon_image::pull_with(
            &lab.store,
            &name,
            &lab.options(),
            &once,
            &Recorder::default(),
        )
    };
    pull().unwrap_err();
    lab.assert_empty();
    let record = pull().unwrap();
    assert_eq!(lab.read_bytes(&record, 0, "noise").len(), 1_000_000);
    let requests = fake.requests(&path);
    assert_eq!(requests[1].header("range"), Some("bytes=700000-"));
    assert_eq!(lab.partials(), 0);
}

#[test]
fn what_was_kept_is_not_believed() {
    let fake = Fake::start();
    let image = Image::noisy(300_000);
    image.serve(&fake, "x", "latest");
    let lab = Lab::new();
    for wrong in [vec![7; 1000], vec![0; 900_000]] {
        let mut kept = lab
            .store
            .partial_blob(&rcon_store::Digest::sha256(&image.blobs[0]))
            .unwrap()
            .unwrap();
        kept.append(&wrong).unwrap();
        drop(kept);
        let record = lab.pull(&format!("{}/x", fake.address)).unwrap();
        assert_eq!(lab.partials(), 0);
        lab.store.remove_image(&record.id).unwrap();
    }
}

#[test]
fn two_who_want_a_layer_fetch_it_once() {
    let fake = Fake::start();
    let image = Image::noisy(1_000_000);
    image.serve(&fake, "x", "latest");
    let path = image.blob_path("x", 0);
    let at = path.clone();
    fake.on_request(move |request, reply| {
        if request.path == at {
            // So that the other comes meanwhile.
            std::thread::sleep(Duration::from_millis(300));
        }
        reply
    });
    let lab = Lab::new();
    let name = format!("{}/x", fake.address);
    let ids: Vec<String> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| lab.pull_with(&name, &lab.options(), &Recorder::default())))
            .collect();
        pulls
            .into_iter()
            .map(|p| p.join().unwrap().unwrap().id)
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(fake.requests(&path).len(), 1);
    lab.assert_no_leftovers();
}
