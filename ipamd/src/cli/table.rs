//! Answers as text for people: aligned columns, one fact per line.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use proto::agent::{GetStatusReply, Lease};

pub(crate) fn status(status: &GetStatusReply) -> String {
    let pool = status.pool.unwrap_or_default();
    let mut text = String::new();
    let ready = if status.ready {
        "ready".to_owned()
    } else {
        format!("not ready: {}", status.detail)
    };
    let _ = writeln!(text, "{ready}");
    let _ = writeln!(
        text,
        "addresses  {} total, {} assigned, {} cooling, {} free; {} waiting, {} orphans",
        pool.total, pool.assigned, pool.cooling, pool.free, pool.waiting, pool.orphans,
    );
    let safe = if status.safe_mode {
        "; SAFE MODE: nothing is given back"
    } else {
        ""
    };
    let _ = writeln!(
        text,
        "pool       {}, provisioning {}, new {}; {} prefixes{safe}",
        status.target, status.provisioning, status.mode, pool.prefixes,
    );
    for warning in &status.warnings {
        let _ = writeln!(text, "warning    {warning}");
    }
    let _ = writeln!(text, "ENIs       {} of {}", status.enis.len(), pool.enis_max);
    for eni in &status.enis {
        let table = if eni.route_table == 254 {
            "main".to_owned()
        } else {
            eni.route_table.to_string()
        };
        let _ = writeln!(
            text,
            "  {:<22} device {:<2} table {:<5} {:<15} {:>3}/{:<3} {} {} {}",
            eni.id,
            eni.device_number,
            table,
            eni.primary_address,
            eni.assigned,
            eni.total,
            eni.role,
            eni.state,
            eni.subnet,
        );
    }
    for subnet in &status.subnets {
        let _ = writeln!(
            text,
            "subnet     {:<25} {:>5} free  {}",
            subnet.id, subnet.free, subnet.access
        );
    }
    let _ = writeln!(text, "put back   {}", counts(&status.repairs));
    let _ = write!(text, "EC2 calls  {}", counts(&status.ec2_calls));
    text
}

fn counts(counts: &HashMap<String, u64>) -> String {
    let counts: BTreeMap<_, _> = counts.iter().collect();
    if counts.is_empty() {
        return "none".to_owned();
    }
    let counts: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
    counts.join(", ")
}

pub(crate) fn leases(leases: &[Lease]) -> String {
    let mut text = format!("{:<15} {:<40} {:<22} {:<5} STATE", "ADDRESS", "POD", "ENI", "TABLE");
    for lease in leases {
        let container = lease
            .attachment
            .as_ref()
            .map(|a| a.container_id.as_str())
            .unwrap_or_default();
        let pod = match lease.pod_name.as_str() {
            "" => format!("container {container}"),
            name => format!("{}/{name}", lease.pod_namespace),
        };
        let table = if lease.route_table == 254 {
            "main".to_owned()
        } else {
            lease.route_table.to_string()
        };
        let _ = write!(
            text,
            "\n{:<15} {pod:<40} {:<22} {table:<5} {}",
            lease.address, lease.eni_id, lease.state
        );
    }
    text
}
