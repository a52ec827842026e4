//! How much memory a process has.

/// The most that this process had in memory so far, in bytes; `None` where the system has no /proc to tell it.
#[allow(dead_code, reason = "not every program tells")]
pub fn peak_bytes() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// What this process has in memory now that no file holds, in bytes; `None` where the system has no /proc to tell it.
#[allow(dead_code, reason = "not every program tells")]
pub fn anonymous_bytes() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// A size, which Linux gives in units of 1024 bytes (proc_pid_status(5)).
fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_field_that_was_asked_for() {
        let status =
            "Name:\tlxmert-bench\nVmPeak:\t  300000 kB\nVmHWM:\t    2048 kB\nRssAnon:\t    1024 kB\n";
        assert_eq!(field(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(field(status, "RssAnon:"), Some(1 << 20));
    }

    #[test]
    fn makes_nothing_up() {
        assert_eq!(field("Name:\tlxmert-bench\nVmRSS:\t1024 kB\n", "VmHWM:"), None);
        assert_eq!(field("VmHWM:\tmuch\n", "VmHWM:"), None);
    }
}
