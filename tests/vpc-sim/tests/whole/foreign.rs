//! What a node agent that nobody here wrote finds on a node: variables, files, ports, devices, metadata, EC2 and the cluster.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;

use vpc_fabric::Node;
use vpc_sim::vpc::{ENVIRONMENT_FILE, KUBECONFIG_FILE, Vpc};

use crate::Test;
use crate::node::{Answer, SOON, device, ec2, element, http, imds, wait_until};

/// Nodes whose agents look for the host's files below `/host`, as in the container of a DaemonSet.
const WITH_HOST: &str = r#"{"nodes": [
    {"name": "node-1", "subnet": "subnet-1", "address": "10.0.1.10", "private_dirs": ["/host", "/vpc-sim-app"]},
    {"name": "node-2", "subnet": "subnet-2", "address": "10.0.2.10", "private_dirs": ["/host", "/vpc-sim-app"]}
]}"#;

pub(crate) const TESTS: &[Test] = &[
    test("variables_lead_to_metadata_ec2_and_the_cluster", variables_lead),
    Test {
        config: WITH_HOST,
        ..test(
            "run_host_and_logs_are_writable_and_of_one_node",
            directories_are_private,
        )
    },
    test(
        "host_is_a_directory_of_the_node_unless_told_otherwise",
        host_is_private_by_default,
    ),
    test("ports_of_metrics_introspection_and_health_are_free", ports_are_free),
    test("a_link_with_the_primary_mac_is_there_from_the_start", primary_link),
    test("a_link_with_the_new_mac_appears_after_attach", new_link),
    test(
        "forwarding_is_on_and_the_default_route_is_the_primary_enis",
        forwarding_and_route,
    ),
    test("metadata_has_every_path_that_the_reference_reads", metadata_paths),
    test("new_enis_and_addresses_become_visible_in_metadata", metadata_follows),
    test("ec2_answers_have_every_field_that_the_reference_reads", ec2_fields),
    test("ec2_refuses_with_the_codes_that_the_reference_acts_on", ec2_codes),
    test("a_node_watches_its_pods_and_itself", node_watches),
];

const fn test(name: &'static str, run: fn(&Vpc)) -> Test {
    Test {
        name,
        config: "{}",
        run,
    }
}

fn node<'a>(vpc: &'a Vpc, name: &str) -> &'a Node {
    vpc.node(name).expect("the configuration has this node")
}

/// Work done in the node; failures are the test's.
fn inside<R: Send + 'static>(node: &Node, work: impl FnOnce() -> R + Send + 'static) -> R {
    node.run(work).unwrap()
}

fn endpoint(url: &str) -> SocketAddrV4 {
    let rest = url.strip_prefix("http://").expect("plain HTTP");
    let with_port = if rest.contains(':') {
        rest.to_owned()
    } else {
        format!("{rest}:80")
    };
    with_port.parse().unwrap()
}

fn get(to: SocketAddrV4, path: &str) -> Answer {
    http(to, &format!("GET {path} HTTP/1.1\r\n"), "")
}

fn variables_lead(vpc: &Vpc) {
    for name in ["node-1", "node-2"] {
        let expected = vpc.environment(name).unwrap();
        inside(node(vpc, name), move || {
            let text = std::fs::read_to_string(ENVIRONMENT_FILE).unwrap();
            let found: BTreeMap<_, _> = text.lines().map(|line| line.split_once('=').unwrap()).collect();
            let expected: BTreeMap<_, _> = expected.iter().map(|(key, value)| (*key, value.as_str())).collect();
            assert_eq!(found, expected);
            assert_eq!(found["AWS_REGION"], "us-east-1");
            let token = "PUT /latest/api/token HTTP/1.1\r\nx-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
            assert_eq!(
                http(endpoint(found["AWS_EC2_METADATA_SERVICE_ENDPOINT"]), token, "").0,
                200
            );
            let described = http(
                endpoint(found["AWS_ENDPOINT_URL_EC2"]),
                "POST / HTTP/1.1\r\n",
                "Action=DescribeVpcs",
            );
            assert_eq!(described.0, 200);
            let in_cluster = format!(
                "{}:{}",
                found["KUBERNETES_SERVICE_HOST"], found["KUBERNETES_SERVICE_PORT"]
            );
            let kubeconfig: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(found["KUBECONFIG"]).unwrap()).unwrap();
            let server = kubeconfig["clusters"][0]["cluster"]["server"]
                .as_str()
                .unwrap()
                .to_owned();
            for url in [
                found["CLUSTER_ENDPOINT"].to_owned(),
                format!("http://{in_cluster}"),
                server,
            ] {
                let own = get(endpoint(&url), &format!("/api/v1/nodes/{}", found["MY_NODE_NAME"]));
                assert_eq!(own.0, 200, "{url}");
            }
            let account = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
            assert!(!std::fs::read_to_string(account.join("token")).unwrap().is_empty());
            assert_eq!(
                std::fs::read_to_string(account.join("namespace")).unwrap(),
                "kube-system"
            );
            assert!(!kubeconfig["users"][0]["user"]["token"].as_str().unwrap().is_empty());
        });
    }
    assert_eq!(
        get(endpoint(&vpc.kube_url()), "/version").0,
        200,
        "from the fabric, as the EC2 endpoint"
    );
    let outside = node(vpc, "node-1").outside(Path::new(KUBECONFIG_FILE));
    assert!(outside.exists(), "the sandbox sees the node's files");
}

fn host_is_private_by_default(vpc: &Vpc) {
    inside(node(vpc, "node-1"), || {
        std::fs::write("/host/vpc-sim-was-here", "").unwrap()
    });
    assert!(!inside(node(vpc, "node-2"), || Path::new("/host/vpc-sim-was-here").exists()));
    assert!(
        !Path::new("/host/vpc-sim-was-here").exists(),
        "nothing gets onto the machine"
    );
}

fn directories_are_private(vpc: &Vpc) {
    let files = [
        "/run/aws-node/ipam.json",
        "/var/run/aws-node/other.json",
        "/host/var/log/aws-routed-eni/ipamd.log",
        "/var/log/aws-routed-eni/plugin.log",
        "/host/opt/cni/bin/aws-cni",
        "/host/etc/cni/net.d/10-aws.conflist",
        "/vpc-sim-app/10-aws.conflist",
    ];
    inside(node(vpc, "node-1"), move || {
        for file in files {
            std::fs::create_dir_all(Path::new(file).parent().unwrap()).unwrap();
            std::fs::write(file, "of node-1").unwrap();
        }
        let socket = std::os::unix::net::UnixListener::bind("/run/aws-node/ipamd.sock").unwrap();
        assert!(std::os::unix::net::UnixStream::connect("/var/run/aws-node/ipamd.sock").is_ok());
        drop(socket);
    });
    inside(node(vpc, "node-2"), move || {
        for file in files {
            assert!(!Path::new(file).exists(), "{file} is node-1's");
        }
    });
    for file in files {
        let outside = node(vpc, "node-1").outside(Path::new(file));
        assert_eq!(
            std::fs::read_to_string(&outside).unwrap(),
            "of node-1",
            "{}",
            outside.display()
        );
    }
    assert!(
        !Path::new("/vpc-sim-app").exists(),
        "the machine's root has no such directory"
    );
}

fn ports_are_free(vpc: &Vpc) {
    let bind = || [61_678, 61_679, 50_051].map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    let first = inside(node(vpc, "node-1"), bind);
    let second = inside(node(vpc, "node-2"), bind);
    assert_eq!(first.len() + second.len(), 6, "on both nodes at once");
}

fn mtu_of(node: &Node, device: &str) -> String {
    let path = format!("/sys/class/net/{device}/mtu");
    inside(node, move || std::fs::read_to_string(path).unwrap().trim().to_owned())
}

fn primary_link(vpc: &Vpc) {
    for name in ["node-1", "node-2"] {
        let node = node(vpc, name);
        let mac = inside(node, || imds("meta-data/mac")).1;
        let link = device(node, &mac).expect("there is a device with the MAC that metadata tells");
        let path = format!("/sys/class/net/{link}/mtu");
        inside(node, move || std::fs::write(path, "9001").unwrap());
        assert_eq!(mtu_of(node, &link), "9001");
    }
}

/// Creates an ENI in the node's subnet and attaches it: its id, MAC and attachment.
fn attach(vpc: &Vpc, name: &str, more: &str) -> (String, String, String) {
    let node = node(vpc, name);
    let instance = vpc.handle().instance(name).unwrap().to_string();
    let subnet = element(
        &ec2(node, &format!("Action=DescribeInstances&InstanceId.1={instance}")),
        "subnetId",
    );
    let created = ec2(node, &format!("Action=CreateNetworkInterface&SubnetId={subnet}{more}"));
    let (eni, mac) = (element(&created, "networkInterfaceId"), element(&created, "macAddress"));
    let form = format!("Action=AttachNetworkInterface&NetworkInterfaceId={eni}&InstanceId={instance}&DeviceIndex=1");
    let tie = element(&ec2(node, &form), "attachmentId");
    (eni, mac, tie)
}

fn new_link(vpc: &Vpc) {
    let (_, mac, _) = attach(vpc, "node-1", "");
    let node = node(vpc, "node-1");
    let link = wait_until(SOON, || device(node, &mac)).expect("the device appears");
    assert_ne!(link, "eth0");
}

fn forwarding_and_route(vpc: &Vpc) {
    let node = node(vpc, "node-1");
    let mac = inside(node, || imds("meta-data/mac")).1;
    let primary = device(node, &mac).unwrap();
    inside(node, move || {
        assert_eq!(
            std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(),
            "1"
        );
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
        let default: Vec<_> = routes
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields[1] == "00000000")
            .collect();
        assert_eq!(default.len(), 1, "{routes}");
        // The gateway, 10.0.1.1, in the order of this machine's bytes.
        assert_eq!((default[0][0], default[0][2]), (primary.as_str(), "0101000A"));
    });
}

fn metadata_paths(vpc: &Vpc) {
    let instance = vpc.handle().instance("node-1").unwrap().to_string();
    inside(node(vpc, "node-1"), move || {
        let read = |path: &str| {
            let (status, text) = imds(path);
            assert_eq!(status, 200, "{path}");
            assert!(!text.is_empty(), "{path}");
            text
        };
        let document: serde_json::Value = serde_json::from_str(&read("dynamic/instance-identity/document")).unwrap();
        assert_eq!(document["region"], "us-east-1");
        assert_eq!(read("meta-data/placement/availability-zone"), "us-east-1a");
        assert_eq!(read("meta-data/local-ipv4"), "10.0.1.10");
        assert_eq!(read("meta-data/instance-id"), instance);
        assert_eq!(read("meta-data/instance-type"), "m5.large");
        let mac = read("meta-data/mac");
        let macs = read("meta-data/network/interfaces/macs");
        assert_eq!(macs.trim_end_matches('\n'), format!("{mac}/"));
        let of_eni = |key: &str| format!("meta-data/network/interfaces/macs/{mac}/{key}");
        let listing = read(&of_eni(""));
        let keys: Vec<_> = listing.lines().collect();
        assert!(
            keys.contains(&"local-ipv4s"),
            "without it the ENI is taken for one without addresses"
        );
        assert!(!keys.contains(&"network-card") && !keys.contains(&"ipv6s"), "{keys:?}");
        assert!(read(&of_eni("interface-id")).starts_with("eni-"));
        assert_eq!(read(&of_eni("device-number")), "0");
        assert!(read(&of_eni("subnet-id")).starts_with("subnet-") && read(&of_eni("vpc-id")).starts_with("vpc-"));
        assert!(read(&of_eni("security-group-ids")).starts_with("sg-"));
        assert_eq!(read(&of_eni("local-ipv4s")), "10.0.1.10");
        assert_eq!(read(&of_eni("subnet-ipv4-cidr-block")), "10.0.1.0/24");
        assert_eq!(read(&of_eni("vpc-ipv4-cidr-blocks")), "10.0.0.0/16");
        assert_eq!(imds(&of_eni("ipv4-prefix")).0, 404, "none");
        let token = "PUT /latest/api/token HTTP/1.1\r\nx-aws-ec2-metadata-token-ttl-seconds: 77\r\n";
        assert!(
            head_of(token)
                .to_ascii_lowercase()
                .contains("x-aws-ec2-metadata-token-ttl-seconds: 77")
        );
    });
}

/// Head of an answer of the metadata service.
fn head_of(request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(vpc_sim::vpc::IMDS_ENDPOINT).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "{request}host: imds\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().0.to_owned()
}

fn metadata_follows(vpc: &Vpc) {
    let (eni, mac, _) = attach(vpc, "node-1", "&SecondaryPrivateIpAddressCount=2");
    let node = node(vpc, "node-1");
    let read = |key: &str| {
        let path = format!("meta-data/network/interfaces/macs/{mac}/{key}");
        inside(node, move || imds(&path))
    };
    wait_until(SOON, || (read("interface-id") == (200, eni.clone())).then_some(())).expect("the ENI shows");
    let addresses = read("local-ipv4s").1;
    let described = ec2(
        node,
        &format!("Action=DescribeNetworkInterfaces&NetworkInterfaceId.1={eni}"),
    );
    assert_eq!(addresses.lines().count(), 3);
    assert_eq!(
        addresses.lines().next(),
        Some(element(&described, "privateIpAddress").as_str()),
        "primary first"
    );
    ec2(
        node,
        &format!("Action=AssignPrivateIpAddresses&NetworkInterfaceId={eni}&Ipv4PrefixCount=1"),
    );
    let prefix = wait_until(SOON, || Some(read("ipv4-prefix")).filter(|answer| answer.0 == 200)).unwrap();
    assert!(prefix.1.ends_with("/28"), "{prefix:?}");
}

/// What the reference reads of a described ENI.
const OF_ENI: [&str; 13] = [
    "networkInterfaceId",
    "interfaceType",
    "attachmentId",
    "deviceIndex",
    "networkCardIndex",
    "deleteOnTermination",
    "privateIpAddress",
    "primary",
    "ipv4Prefix",
    "tagSet",
    "key",
    "subnetId",
    "description",
];

/// And of an instance type.
const OF_TYPE: [&str; 7] = [
    "maximumNetworkInterfaces",
    "ipv4AddressesPerInterface",
    "maximumNetworkCards",
    "defaultNetworkCardIndex",
    "networkCards",
    "hypervisor",
    "bareMetal",
];

/// The answer has all these elements.
fn has(answer: &Answer, names: &[&str]) {
    assert_eq!(answer.0, 200, "{answer:?}");
    for name in names {
        assert!(!element(answer, name).is_empty(), "{name} in {answer:?}");
    }
}

fn ec2_fields(vpc: &Vpc) {
    let (eni, _, tie) = attach(
        vpc,
        "node-1",
        "&SecondaryPrivateIpAddressCount=1&Description=aws-K8S-i-1&TagSpecification.1.ResourceType=network-interface\
         &TagSpecification.1.Tag.1.Key=node.k8s.amazonaws.com%2Finstance_id&TagSpecification.1.Tag.1.Value=i-1",
    );
    let node = node(vpc, "node-1");
    let instance = vpc.handle().instance("node-1").unwrap().to_string();
    let assigned = ec2(
        node,
        &format!("Action=AssignPrivateIpAddresses&NetworkInterfaceId={eni}&Ipv4PrefixCount=1"),
    );
    has(&assigned, &["assignedIpv4PrefixSet", "ipv4Prefix"]);
    let assigned = ec2(
        node,
        &format!("Action=AssignPrivateIpAddresses&NetworkInterfaceId={eni}&SecondaryPrivateIpAddressCount=1"),
    );
    has(&assigned, &["assignedPrivateIpAddressesSet", "privateIpAddress"]);
    let by_id = ec2(
        node,
        &format!("Action=DescribeNetworkInterfaces&NetworkInterfaceId.1={eni}"),
    );
    has(&by_id, &OF_ENI);
    let sweep = "Action=DescribeNetworkInterfaces&MaxResults=1000&Filter.1.Name=tag-key&\
                 Filter.1.Value.1=node.k8s.amazonaws.com%2Finstance_id&Filter.2.Name=status&Filter.2.Value.1=in-use";
    has(&ec2(node, sweep), &OF_ENI);
    let instances = ec2(node, &format!("Action=DescribeInstances&InstanceId.1={instance}"));
    has(
        &instances,
        &[
            "reservationId",
            "networkInterfaceSet",
            "deviceIndex",
            "networkCardIndex",
        ],
    );
    assert_eq!(
        instances.1.matches("<reservationId>").count(),
        1,
        "exactly one reservation"
    );
    let vpc_id = element(&instances, "vpcId");
    let subnets = "Filter.2.Name=availability-zone&Filter.2.Value.1=us-east-1a";
    let form = format!("Action=DescribeSubnets&Filter.1.Name=vpc-id&Filter.1.Value.1={vpc_id}&{subnets}");
    has(&ec2(node, &form), &["subnetId", "availableIpAddressCount", "tagSet"]);
    has(
        &ec2(node, "Action=DescribeInstanceTypes&InstanceType.1=m5.large"),
        &OF_TYPE,
    );
    let address = element(&assigned, "privateIpAddress");
    for form in [
        format!(
            "ModifyNetworkInterfaceAttribute&NetworkInterfaceId={eni}&Attachment.AttachmentId={tie}&Attachment.DeleteOnTermination=true"
        ),
        format!("CreateTags&ResourceId.1={eni}&Tag.1.Key=a&Tag.1.Value=b"),
        format!("UnassignPrivateIpAddresses&NetworkInterfaceId={eni}&PrivateIpAddress.1={address}"),
        format!("DetachNetworkInterface&AttachmentId={tie}"),
        format!("DeleteNetworkInterface&NetworkInterfaceId={eni}"),
    ] {
        assert_eq!(ec2(node, &format!("Action={form}")).0, 200, "{form}");
    }
}

fn ec2_codes(vpc: &Vpc) {
    let node = node(vpc, "node-1");
    let (eni, _, _) = attach(vpc, "node-1", "");
    let gone = "eni-0123456789abcdef0";
    let missing = ec2(
        node,
        &format!("Action=DescribeNetworkInterfaces&NetworkInterfaceId.1={gone}"),
    );
    assert_eq!(element(&missing, "Code"), "InvalidNetworkInterfaceID.NotFound");
    assert!(
        element(&missing, "Message").contains(&format!("'{gone}'")),
        "the id stands in single quotes"
    );
    let too_many =
        format!("Action=AssignPrivateIpAddresses&NetworkInterfaceId={eni}&SecondaryPrivateIpAddressCount=10");
    assert_eq!(element(&ec2(node, &too_many), "Code"), "PrivateIpAddressLimitExceeded");
    let subnet = element(&ec2(node, "Action=DescribeSubnets"), "subnetId");
    let create = |what: &str| ec2(node, &format!("Action=CreateNetworkInterface&SubnetId={subnet}&{what}"));
    assert_eq!(
        element(&create("SecondaryPrivateIpAddressCount=251"), "Code"),
        "InsufficientFreeAddressesInSubnet"
    );
    // Fourteen blocks of sixteen are whole in a /24, and some hold an address.
    assert_eq!(element(&create("Ipv4PrefixCount=14"), "Code"), "InsufficientCidrBlocks");
}

fn node_watches(vpc: &Vpc) {
    let pod = vpc_sim::kube::objects::pod(&vpc_sim::kube::objects::PodFacts {
        namespace: "default".to_owned(),
        name: "web-1".to_owned(),
        node: "node-1".to_owned(),
        ..Default::default()
    });
    vpc.kube().apply(pod).unwrap();
    let kube = endpoint(&vpc.kube_url());
    let events = |node: &Node, path: &str, field: &str| {
        let options = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let path = format!("{path}?{options}&timeoutSeconds=1&fieldSelector={field}");
        let (status, body) = inside(node, move || get(kube, &path));
        assert_eq!(status, 200);
        // Chunks are one event each here; their sizes stand on lines of their own.
        let lines = body.lines().filter(|line| line.starts_with('{')).map(str::to_owned);
        lines
            .map(|line| {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap();
                let end = &event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"];
                let name = event["object"]["metadata"]["name"]
                    .as_str()
                    .or(end.as_str())
                    .unwrap_or("-")
                    .to_owned();
                format!("{} {name}", event["type"].as_str().unwrap())
            })
            .collect::<Vec<_>>()
    };
    let own = events(node(vpc, "node-1"), "/api/v1/pods", "spec.nodeName%3Dnode-1");
    assert_eq!(own[..2], ["ADDED web-1", "BOOKMARK true"]);
    assert_eq!(
        events(node(vpc, "node-2"), "/api/v1/pods", "spec.nodeName%3Dnode-2")[0],
        "BOOKMARK true"
    );
    let nodes = events(node(vpc, "node-2"), "/api/v1/nodes", "metadata.name%3Dnode-2");
    assert_eq!(nodes[..2], ["ADDED node-2", "BOOKMARK true"]);
    for path in ["/version", "/api", "/apis", "/api/v1"] {
        assert_eq!(inside(node(vpc, "node-1"), move || get(kube, path)).0, 200, "{path}");
    }
}
