//! `pause`, `resume` and `update`.

use std::io::Read;

use clap::Args;
use rcon_launch::oci::Runtime;
use rcon_launch::spec::{LinuxIntelRdt, LinuxResources};
use rcon_sys::errors::in_words;
use serde_json::{Value, json};

use super::Command;
use super::globals::Globals;
use crate::failure::{Failure, Outcome};

/// `rcon oci pause`
#[derive(Args, Debug)]
pub struct Pause {
    /// The id of the container
    id: String,
}

impl Command for Pause {
    fn run(self, runtime: &Runtime, _: &Globals) -> Outcome {
        runtime.freeze(&self.id, true)?;
        Ok(0)
    }
}

/// `rcon oci resume`
#[derive(Args, Debug)]
pub struct Resume {
    /// The id of the container
    id: String,
}

impl Command for Resume {
    fn run(self, runtime: &Runtime, _: &Globals) -> Outcome {
        runtime.freeze(&self.id, false)?;
        Ok(0)
    }
}

/// `rcon oci update`
#[derive(Args, Debug)]
pub struct Update {
    /// A file with linux.resources of a specification ("-" is standard input)
    #[arg(short, long)]
    resources: Option<String>,
    /// The weight at disks, from 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// The period of the processor quota, in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// How much of each period the container may run, in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// The weight at processors
    #[arg(long)]
    cpu_share: Option<u64>,
    /// The period of real-time processes, in microseconds
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// How much of each period real-time processes may run, in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// The processors to use
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// The memory nodes to use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// The limit of memory, in bytes
    #[arg(long, allow_hyphen_values = true)]
    memory: Option<i64>,
    /// The memory that is not taken back, in bytes
    #[arg(long, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// The limit of memory and swap together, in bytes
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// The limit of processes
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// The limit of the kernel's own memory, in bytes (version 1 of cgroups)
    #[arg(long, allow_hyphen_values = true)]
    kernel_memory: Option<i64>,
    /// The limit of the kernel's memory for TCP, in bytes (version 1 of cgroups)
    #[arg(long, allow_hyphen_values = true)]
    kernel_memory_tcp: Option<i64>,
    /// The share of caches ("L3:0=7f0;1=1f")
    #[arg(long)]
    l3_cache_schema: Option<String>,
    /// The share of the memory bandwidth ("MB:0=20;1=70")
    #[arg(long)]
    mem_bw_schema: Option<String>,
    /// The id of the container
    id: String,
}

impl Command for Update {
    fn run(self, runtime: &Runtime, _: &Globals) -> Outcome {
        let wrong = |why: String| Failure::new(format!("invalid resources: {why}"));
        let mut all = match self.resources.as_deref() {
            None => json!({}),
            Some(path) => serde_json::from_str(&read(path)?).map_err(|e| wrong(e.to_string()))?,
        };
        // Nothing else can be given members.
        let can_have = |value: &Value| value.is_object() || value.is_null();
        let mut parts = ["blockIO", "cpu", "memory", "pids"].iter();
        if !can_have(&all) || !parts.all(|part| all.get(part).is_none_or(can_have)) {
            return Err(wrong("what should be an object is none".to_owned()));
        }
        let mut set = |part: &str, name: &str, value: Option<Value>| {
            if let Some(value) = value {
                all[part][name] = value;
            }
        };
        set("blockIO", "weight", self.blkio_weight.map(Value::from));
        set("cpu", "period", self.cpu_period.map(Value::from));
        set("cpu", "quota", self.cpu_quota.map(Value::from));
        set("cpu", "shares", self.cpu_share.map(Value::from));
        set("cpu", "realtimePeriod", self.cpu_rt_period.map(Value::from));
        set(
            "cpu",
            "realtimeRuntime",
            self.cpu_rt_runtime.map(Value::from),
        );
        set("memory", "kernel", self.kernel_memory.map(Value::from));
        set(
            "memory",
            "kernelTCP",
            self.kernel_memory_tcp.map(Value::from),
        );
        set("cpu", "cpus", self.cpuset_cpus.map(Value::from));
        set("cpu", "mems", self.cpuset_mems.map(Value::from));
        set("memory", "limit", self.memory.map(Value::from));
        set(
            "memory",
            "reservation",
            self.memory_reservation.map(Value::from),
        );
        set("memory", "swap", self.memory_swap.map(Value::from));
        set("pids", "limit", self.pids_limit.map(Value::from));
        let resources: LinuxResources =
            serde_json::from_value(all).map_err(|error| wrong(error.to_string()))?;
        let shares = self.l3_cache_schema.is_some() || self.mem_bw_schema.is_some();
        if shares {
            let mut shares = LinuxIntelRdt::default();
            shares
                .set_l3_cache_schema(self.l3_cache_schema)
                .set_mem_bw_schema(self.mem_bw_schema);
            runtime.share(&self.id, &shares)?;
        }
        if !shares || resources != LinuxResources::default() {
            runtime.update(&self.id, &resources)?;
        }
        Ok(0)
    }
}

fn read(path: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match path {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        path => std::fs::read_to_string(path).map(|content| text = content),
    };
    match read {
        Ok(()) => Ok(text),
        Err(error) => Err(Failure::new(format!(
            "cannot read {path}: {}",
            in_words(&error)
        ))),
    }
}
