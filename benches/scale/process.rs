//! What a process has used, as the kernel counts it.

use std::path::Path;

const MIB: f64 = 1_048_576.0;

/// Seconds on a processor, of all threads that still run.
pub fn cpu_s(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: &Path| {
        let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0)
    };
    tasks.map(|task| of_task(&task.unwrap().path())).sum::<f64>() / 1e9
}

/// Resident now, and at its peak.
pub fn memory_mib(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / MIB
    };
    (of("VmRSS:"), of("VmHWM:"))
}
