//! How much memory a process took.

/// The most that this process had in memory so far, in bytes; `None` where the system has no /proc to tell it.
pub fn peak_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The high-water mark of the resident set, which Linux gives in units of 1024 bytes (proc_pid_status(5)).
fn parse(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_high_water_mark() {
        let status = "Name:\tlxmert-bench\nVmPeak:\t  300000 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse(status), Some(2 << 20));
    }

    #[test]
    fn makes_nothing_up() {
        assert_eq!(parse("Name:\tlxmert-bench\nVmRSS:\t1024 kB\n"), None);
        assert_eq!(parse("VmHWM:\tmuch\n"), None);
    }
}
