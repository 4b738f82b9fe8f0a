//! Connections whose servers have ended with their container.
//!
//! What a server sent before it ended is in its kernel's socket, in a pipe or buffer of ours, and in the client's
//! socket, and goes on to the client from there; what clients say now is answered by the kernel, as on any machine.

use smoltcp::time::{Duration, Instant};

use super::Relay;
use crate::serve::{Bounds, Due, Watch};
use crate::slab::Key;

impl Relay {
    /// Takes no clients any more: their ports are closed when this returns, and so are the connections that have nothing left
    /// to deliver.
    pub(super) fn linger(&mut self, now: Instant, bounds: Bounds) {
        let ports: Vec<Key> = self.ports.iter().map(|(key, _)| key).collect();
        for key in ports {
            if let Some(listener) = self.ports.remove(key) {
                self.poller.remove(&listener.socket);
            }
        }
        self.lingering = Some(Watch::new(bounds, now));
        for key in self.keys() {
            if let Some(pair) = self.pairs.get_mut(key) {
                pair.linger();
                if !pair.queued {
                    pair.queued = true;
                    self.queue.push(key);
                }
            }
        }
        self.flush();
    }

    fn keys(&self) -> Vec<Key> {
        self.pairs.iter().map(|(key, _)| key).collect()
    }

    /// How long nothing is due by itself; `None` when the relay is over: that of a container that has ended, and nobody
    /// is left.
    pub(super) fn look_at_clock(&mut self, now: Instant) -> Option<Option<Duration>> {
        loop {
            let Some(watch) = &mut self.lingering else {
                return Some(None);
            };
            if self.pairs.len() == 0 {
                return None;
            }
            let all = match watch.look(now) {
                Due::In(time) => return Some(Some(time)),
                Due::Look => false,
                Due::End => true,
            };
            for key in self.keys() {
                let waits = |pair: &mut super::Pair| !pair.has_moved_on() || all;
                if self.pairs.get_mut(key).is_some_and(waits) {
                    self.close(key, true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::sync::mpsc::channel;
    use std::time::Duration as Time;

    use rustix::event::{EventfdFlags, eventfd};

    use super::super::orders::Order;
    use super::*;
    use crate::config::Config;
    use crate::limits::Limits;
    use crate::stack::policy::Policy;

    /// Both ends of a connection; the first does not wait.
    fn connection() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        (near.into(), far)
    }

    /// A relay with one connection, whose server writes this and ends: the client, and the relay's end to wait for.
    fn left_with(bytes: Vec<u8>, bounds: Bounds) -> (TcpStream, std::thread::JoinHandle<()>) {
        let wake = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let (orders, receiver) = channel();
        let policy = Policy::new(&Config::default());
        let limits = Limits::for_descriptors(256);
        let waker = wake.try_clone().unwrap();
        let mut relay = Relay::new(policy, limits, receiver, wake).unwrap();
        let ((client, user), (server, mut service)) = (connection(), connection());
        relay.join(client, server);
        let (tell, told) = channel();
        let relay = std::thread::spawn(move || relay.run().unwrap());
        let writer = std::thread::spawn(move || {
            // As with a program's end, the kernel has the rest when the last write returns.
            let _ = service.write_all(&bytes);
        });
        // The container ends while most of it is on its way.
        std::thread::sleep(Time::from_millis(20));
        let tell = Box::new(move |left| tell.send(left).unwrap());
        orders.send(Order::Linger(bounds, tell)).unwrap();
        rustix::io::write(&waker, &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(told.recv().unwrap(), 1);
        let end = std::thread::spawn(move || {
            relay.join().unwrap();
            writer.join().unwrap();
        });
        (user, end)
    }

    fn many_bytes() -> Vec<u8> {
        (0..24_000_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect()
    }

    #[test]
    fn a_client_gets_all_that_a_server_wrote_that_has_ended() {
        let bytes = many_bytes();
        let (mut user, end) = left_with(bytes.clone(), Bounds::default());
        std::thread::sleep(Time::from_millis(300));
        let mut got = Vec::new();
        user.read_to_end(&mut got).unwrap();
        assert!(got == bytes, "{} of {} bytes", got.len(), bytes.len());
        end.join().unwrap();
    }

    #[test]
    fn a_client_that_takes_nothing_is_reset_at_last() {
        let bounds = Bounds {
            stalled: Duration::from_millis(200),
            whole: Duration::from_secs(60),
        };
        let (mut user, end) = left_with(many_bytes(), bounds);
        end.join().unwrap();
        // It does not take what it has for the whole.
        assert!(user.read_to_end(&mut Vec::new()).is_err());
        // The same for one that takes too long.
        let bounds = Bounds {
            stalled: Duration::from_secs(60),
            whole: Duration::from_millis(200),
        };
        let (mut user, end) = left_with(many_bytes(), bounds);
        end.join().unwrap();
        assert!(user.read_to_end(&mut Vec::new()).is_err());
    }
}
