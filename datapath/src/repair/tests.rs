use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);

fn pod(container: &str, veth: &str, table: u32) -> DesiredPod {
    DesiredPod {
        address: ADDRESS,
        table: RouteTableId(table),
        container_id: container.to_owned(),
        host_veth: veth.to_owned(),
    }
}

fn link(index: u32, name: &str, alias: Option<&str>) -> Link {
    Link {
        index: IfIndex::new(index).unwrap(),
        name: name.to_owned(),
        mac: None,
        alias: alias.map(str::to_owned),
        mtu: 9001,
        is_up: true,
        kind: Some("veth".to_owned()),
    }
}

fn route(device: u32) -> FoundRoute {
    FoundRoute {
        destination: ADDRESS,
        prefix_len: 32,
        table: 254,
        device: Some(device),
        gateway: None,
        metric: 0,
    }
}

fn host(links: Vec<Link>, main: Vec<FoundRoute>, rules: Vec<Rule>) -> HostLook {
    HostLook { links, main, rules }
}

fn index(n: u32) -> IfIndex {
    IfIndex::new(n).unwrap()
}

fn plan(pods: &[DesiredPod], host: &HostLook) -> Vec<Step> {
    Repairer::default().plan(pods, host, &mut Vec::new())
}

fn whole(table: u32) -> Vec<Step> {
    vec![
        Step::Route {
            address: ADDRESS,
            device: index(7),
        },
        Step::Rule(to_pod_rule(ADDRESS)),
        Step::Rule(from_pod_rule(ADDRESS, RouteTableId(table))),
    ]
}

#[test]
fn a_pod_that_lacks_nothing_needs_nothing_and_one_that_lacks_all_gets_all() {
    let pods = [pod("c", "enia", 2)];
    let links = || vec![link(7, "enia", Some("c"))];
    let rules = vec![to_pod_rule(ADDRESS), from_pod_rule(ADDRESS, RouteTableId(2))];
    assert_eq!(plan(&pods, &host(links(), vec![route(7)], rules)), []);
    assert_eq!(plan(&pods, &host(links(), vec![], vec![])), whole(2));
    let main = [pod("c", "enia", 254)];
    assert_eq!(plan(&main, &host(links(), vec![], vec![])), whole(2)[..2]);
}

#[test]
fn a_pod_without_its_own_veth_gets_nothing() {
    let pods = [pod("c", "enia", 2)];
    for links in [
        vec![],
        // Of the sandbox that came after it.
        vec![link(7, "enia", Some("d"))],
        vec![link(7, "enib", None)],
    ] {
        assert_eq!(plan(&pods, &host(links, vec![], vec![])), []);
    }
}

#[test]
fn a_veth_without_alias_is_told_by_its_name_unless_two_sandboxes_share_it() {
    let links = || vec![link(7, "enia", None)];
    assert_eq!(plan(&[pod("c", "enia", 2)], &host(links(), vec![], vec![])), whole(2));
    let two = [pod("c", "enia", 2), pod("d", "enia", 2)];
    assert_eq!(plan(&two, &host(links(), vec![], vec![])), []);
}

#[test]
fn several_interfaces_of_one_container_are_told_by_their_names() {
    let mut second = pod("c", "enib", 254);
    second.address = Ipv4Addr::new(10, 0, 1, 6);
    let pods = [pod("c", "enia", 254), second];
    let links = vec![link(8, "enib", Some("c"))];
    let steps = plan(&pods, &host(links, vec![], vec![]));
    assert_eq!(
        steps[0],
        Step::Route {
            address: pods[1].address,
            device: index(8)
        }
    );
    assert_eq!(steps.len(), 2);
}

#[test]
fn an_address_whose_route_leads_to_another_container_is_left_alone() {
    let links = vec![link(7, "enia", Some("c")), link(8, "enib", Some("d"))];
    assert_eq!(plan(&[pod("c", "enia", 2)], &host(links, vec![route(8)], vec![])), []);
}

#[test]
fn a_route_that_other_software_takes_is_taken_back_three_times_and_then_left_with_one_word() {
    let pods = [pod("c", "enia", 254)];
    let links = vec![link(7, "enia", Some("c")), link(8, "dummy0", None)];
    let found = host(links, vec![route(8)], vec![to_pod_rule(ADDRESS)]);
    let (mut repairer, mut kept) = (Repairer::default(), Vec::new());
    for _ in 0..3 {
        assert_eq!(repairer.plan(&pods, &found, &mut kept), whole(2)[..1]);
        assert_eq!(kept, []);
    }
    for _ in 0..2 {
        assert_eq!(repairer.plan(&pods, &found, &mut kept), []);
    }
    assert_eq!(
        kept,
        [Kept {
            address: ADDRESS,
            device: "dummy0".to_owned()
        }]
    );
    // The next pod with this address starts anew.
    repairer.forget_all_but(&[]);
    assert_eq!(repairer.plan(&pods, &found, &mut kept), whole(2)[..1]);
}

#[test]
fn a_foreign_route_of_a_worse_metric_is_no_route_of_ours() {
    let links = vec![link(7, "enia", Some("c")), link(8, "dummy0", None)];
    let mut worse = route(8);
    worse.metric = 100;
    let found = host(links, vec![worse], vec![]);
    assert_eq!(plan(&[pod("c", "enia", 2)], &found), whole(2));
}

#[test]
fn a_rule_from_the_pod_into_another_table_is_the_pods_own() {
    let links = vec![link(7, "enia", Some("c"))];
    let rules = vec![to_pod_rule(ADDRESS), from_pod_rule(ADDRESS, RouteTableId(9))];
    assert_eq!(plan(&[pod("c", "enia", 2)], &host(links, vec![route(7)], rules)), []);
}

#[test]
fn a_foreign_rule_of_our_priority_does_not_stand_for_ours() {
    let links = vec![link(7, "enia", Some("c"))];
    let mut foreign = to_pod_rule(ADDRESS);
    foreign.table = Some(77);
    let found = host(links, vec![route(7)], vec![foreign]);
    assert_eq!(plan(&[pod("c", "enia", 254)], &found), whole(2)[1..2]);
}

#[test]
fn a_veth_that_is_down_comes_up_and_gets_its_route_again() {
    let mut veth = link(7, "enia", Some("c"));
    veth.is_up = false;
    let found = host(vec![veth], vec![route(7)], vec![to_pod_rule(ADDRESS)]);
    let steps = plan(&[pod("c", "enia", 254)], &found);
    assert_eq!(steps, [Step::Up(index(7)), whole(2)[0]]);
}
