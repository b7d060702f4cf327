//! Init on a real kernel: in network and mount namespaces of the test.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use netlink::message::{LinkRef, LinkState, Route, Rule, Veth, VethEnd, address, set_link_state};
use netlink::packet::RouteNetlinkMessage;
use netlink::packet::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink::testing::in_namespace;
use netlink::{Errno, RouteSocket};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use node_setup::init::{self, InitError, Places};
use node_setup::install::{self, Change, InstallError};
use node_setup::sysctls::{Outcome, ROOT};
use vpc_types::MacAddress;

/// NLM_F_CREATE | NLM_F_EXCL.
const CREATE: u16 = 0x600;
const PRIMARY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SECONDARY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A network and a mount namespace; `/proc/sys/net` is then that of the former.
fn on_a_node(test: impl FnOnce() + Send) {
    in_namespace(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("whoever makes a network namespace makes a mount namespace");
        mount_flags("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        test();
    });
}

fn mount_flags(path: &str, flags: MsFlags) {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path))
        .unwrap()
        .trim()
        .to_owned()
}

fn write(path: &str, value: &str) {
    fs::write(Path::new(ROOT).join(path), value).unwrap();
}

/// A device with the far end of its wire beside it.
fn device(socket: &mut RouteSocket, name: &str, mac: [u8; 6], own: Ipv4Addr) -> u32 {
    let peer_name = format!("{name}.far");
    let end = |name, mac| VethEnd {
        name,
        mtu: 1500,
        mac,
        netns: None,
    };
    let veth = Veth {
        end: end(name, mac),
        state: LinkState::Up,
        group: 0,
        peer: end(&peer_name, [2, 0, 0, 0, 1, mac[5]]),
    };
    socket.request("make", CREATE, veth.message()).unwrap();
    socket
        .request("up", 0, set_link_state(LinkRef::Name(&peer_name), LinkState::Up))
        .unwrap();
    let index = socket.device_index(name).unwrap();
    let message = RouteNetlinkMessage::NewAddress(address(index, own, 24));
    socket.request("address", CREATE, message).unwrap();
    index
}

/// The two interfaces of a node.
fn enis(socket: &mut RouteSocket) -> (u32, u32) {
    socket
        .request("up", 0, set_link_state(LinkRef::Name("lo"), LinkState::Up))
        .unwrap();
    let primary = device(socket, "ens5", PRIMARY_MAC, Ipv4Addr::new(10, 0, 0, 5));
    let secondary = device(socket, "ens6", SECONDARY_MAC, Ipv4Addr::new(10, 0, 1, 5));
    (primary, secondary)
}

/// sysfs shows the interfaces of the namespace that mounted it.
struct Host {
    root: tempfile::TempDir,
    places: Places,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let sys = path("sys");
        mount(Some("sysfs"), &sys, Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
        path("host/opt/cni/bin");
        let programs = path("init");
        for name in ["portmap", "loopback", "aws-vpc-cni-init"] {
            fs::write(programs.join(name), name).unwrap();
            fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let places = Places {
            programs,
            except: vec!["aws-vpc-cni-init".to_owned()],
            net_class: sys.join("class/net"),
            sysctls: ROOT.into(),
        };
        Self { root, places }
    }

    fn run(&self, pairs: &[(&str, &str)]) -> Result<init::Report, InitError> {
        let mut environment: BTreeMap<String, String> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        environment.insert("VPC_CNI_ROOT".to_owned(), self.root.path().display().to_string());
        init::run(
            &environment,
            "02:00:00:00:00:01".parse::<MacAddress>().unwrap(),
            &self.places,
        )
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.root.path().join("host/opt/cni/bin").join(name)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The directory cannot be removed with it; the mount ends with the namespace in any case.
        let _ = nix::mount::umount(&self.root.path().join("sys"));
    }
}

fn outcomes(report: &init::Report) -> Vec<&Outcome> {
    report.sysctls.iter().map(|(_, outcome)| outcome).collect()
}

#[test]
fn init_makes_a_node_ready_and_changes_nothing_the_second_time() {
    on_a_node(|| {
        enis(&mut RouteSocket::open().unwrap());
        write("net/ipv4/ip_forward", "0");
        write("net/ipv4/conf/ens5/rp_filter", "1");
        let others = read("net/ipv4/conf/default/rp_filter");
        let host = Host::new();
        let report = host.run(&[]).unwrap();
        assert_eq!(report.primary, "ens5");
        assert_eq!(
            [
                read("net/ipv4/ip_forward"),
                read("net/ipv4/conf/ens5/rp_filter"),
                read("net/ipv4/tcp_early_demux")
            ],
            ["1", "2", "1"]
        );
        assert_eq!(read("net/ipv4/conf/default/rp_filter"), others);
        assert_eq!(fs::read(host.bin("portmap")).unwrap(), b"portmap");
        assert!(!host.bin("aws-vpc-cni-init").exists());
        let again = host.run(&[]).unwrap();
        assert!(
            outcomes(&again).iter().all(|outcome| **outcome == Outcome::AsWanted),
            "{again:?}"
        );
        assert!(
            again.installed.iter().all(|(_, change)| *change == Change::Unchanged),
            "{again:?}"
        );
    });
}

#[test]
fn init_prepares_ipv6_where_it_is_asked_for() {
    on_a_node(|| {
        enis(&mut RouteSocket::open().unwrap());
        write("net/ipv6/conf/all/disable_ipv6", "1");
        let host = Host::new();
        host.run(&[("ENABLE_IPv6", "true"), ("DISABLE_TCP_EARLY_DEMUX", "t")])
            .unwrap();
        let found =
            ["all/disable_ipv6", "all/forwarding", "ens5/accept_ra"].map(|key| read(&format!("net/ipv6/conf/{key}")));
        assert_eq!(found, ["0", "1", "2"]);
        assert_eq!(read("net/ipv4/tcp_early_demux"), "0");
    });
}

#[test]
fn a_read_only_proc_sys_is_no_error_as_long_as_it_has_the_values() {
    on_a_node(|| {
        enis(&mut RouteSocket::open().unwrap());
        let host = Host::new();
        host.run(&[]).unwrap();
        mount(Some(ROOT), ROOT, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mount_flags(ROOT, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        host.run(&[]).unwrap();
        let error = host
            .run(&[("DISABLE_TCP_EARLY_DEMUX", "true")])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("net/ipv4/tcp_early_demux must be 0 and is \"1\": Read-only file system"),
            "{error}"
        );
    });
}

#[test]
fn bad_variables_and_a_missing_interface_change_no_setting() {
    on_a_node(|| {
        write("net/ipv4/ip_forward", "0");
        let host = Host::new();
        let error = host.run(&[("POD_MTU", "1")]).unwrap_err();
        assert!(
            matches!(error, InitError::Settings(_)) && !host.bin("portmap").exists(),
            "{error}"
        );
        let error = host.run(&[]).unwrap_err();
        assert!(error.to_string().contains("02:00:00:00:00:01"), "{error}");
        assert_eq!(read("net/ipv4/ip_forward"), "0");
    });
}

#[test]
fn a_full_disk_leaves_the_old_programs_whole() {
    on_a_node(|| {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("disk");
        fs::create_dir(&disk).unwrap();
        mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        let source = root.path().join("aws-cni");
        fs::write(&source, vec![1; 8192]).unwrap();
        install::copy(std::slice::from_ref(&source), &disk).unwrap();
        fs::write(&source, vec![2; 80 * 1024]).unwrap();
        let error = install::copy(std::slice::from_ref(&source), &disk).unwrap_err();
        let InstallError::Write { source: cause, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(cause.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(disk.join("aws-cni")).unwrap(), vec![1; 8192]);
        assert_eq!(fs::read_dir(&disk).unwrap().count(), 1);
        nix::mount::umount(&disk).unwrap();
    });
}

/// Whether the kernel would take a packet that arrives at a device: it looks the way back up, as for a real one.
fn takes(socket: &mut RouteSocket, device: u32, source: Ipv4Addr, target: Ipv4Addr) -> bool {
    let mut message = RouteMessage::default();
    message.header.address_family = netlink::packet::AddressFamily::Inet;
    message.header.source_prefix_length = 32;
    message.header.destination_prefix_length = 32;
    message.attributes = vec![
        RouteAttribute::Source(RouteAddress::Inet(source)),
        RouteAttribute::Destination(RouteAddress::Inet(target)),
        RouteAttribute::Iif(device),
    ];
    match socket.look_up("way in", RouteNetlinkMessage::GetRoute(message)) {
        Ok(_) => true,
        Err(error) => {
            // Kernels since 6.13 say the latter.
            let is_way_back = matches!(error.errno(), Some(Errno::EXDEV | Errno::EINVAL));
            assert!(is_way_back, "{error}");
            false
        }
    }
}

fn route(socket: &mut RouteSocket, destination: Ipv4Addr, table: u32, device: u32, gateway: Option<Ipv4Addr>) {
    let prefix_len = if destination.is_unspecified() { 0 } else { 32 };
    let route = Route {
        destination,
        prefix_len,
        table,
        device,
        gateway,
    };
    socket
        .request("route", CREATE, RouteNetlinkMessage::NewRoute(route.message()))
        .unwrap();
}

#[test]
fn the_primary_interface_needs_to_be_loose_and_a_secondary_one_does_not() {
    const MAIN: u32 = 254;
    const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);
    on_a_node(|| {
        let mut socket = RouteSocket::open().unwrap();
        let (primary, secondary) = enis(&mut socket);
        let pod = device(&mut socket, "enipod", [2, 0, 0, 0, 0, 9], Ipv4Addr::new(192, 0, 2, 1));
        let (first, second) = (Ipv4Addr::new(10, 0, 0, 77), Ipv4Addr::new(10, 0, 1, 77));
        route(&mut socket, ANY, MAIN, primary, Some(Ipv4Addr::new(10, 0, 0, 1)));
        route(&mut socket, first, MAIN, pod, None);
        route(&mut socket, second, MAIN, pod, None);
        route(&mut socket, Ipv4Addr::new(10, 0, 1, 1), 2, secondary, None);
        route(&mut socket, ANY, 2, secondary, Some(Ipv4Addr::new(10, 0, 1, 1)));
        let rules = [
            Rule {
                priority: 512,
                to: Some(first),
                table: Some(MAIN),
                ..Rule::default()
            },
            Rule {
                priority: 512,
                to: Some(second),
                table: Some(MAIN),
                ..Rule::default()
            },
            Rule {
                priority: 1536,
                from: Some(second),
                table: Some(2),
                ..Rule::default()
            },
            Rule {
                priority: 32765,
                from: Some(OWN),
                table: Some(2),
                ..Rule::default()
            },
        ];
        for rule in rules {
            socket
                .request("rule", CREATE, RouteNetlinkMessage::NewRule(rule.message()))
                .unwrap();
        }
        write("net/ipv4/ip_forward", "1");
        for device in ["all", "ens5", "ens6", "enipod"] {
            write(&format!("net/ipv4/conf/{device}/rp_filter"), "1");
        }
        // Strict everywhere. To pods by their own ENIs, and from them:
        assert!(takes(&mut socket, primary, HOST, first));
        assert!(takes(&mut socket, secondary, HOST, second));
        assert!(takes(&mut socket, pod, second, HOST));
        // To a program of the node that uses the secondary ENI's own address:
        assert!(takes(&mut socket, secondary, HOST, OWN));
        // What arrived at the primary ENI for the node and was translated to a pod of the other one:
        assert!(!takes(&mut socket, primary, HOST, second));
        // A pod that uses an address of another network:
        assert!(!takes(&mut socket, pod, HOST, first));
        Host::new().run(&[]).unwrap();
        assert!(takes(&mut socket, primary, HOST, second));
        assert!(takes(&mut socket, secondary, HOST, second));
        assert!(!takes(&mut socket, pod, HOST, first), "pods' veths stay strict");
    });
}
