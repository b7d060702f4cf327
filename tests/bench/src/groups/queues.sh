# Pods' links with different numbers of queues: how long 100 of them take to make, and how much goes through one.
# Prints `create QUEUES MICROSECONDS` per pair and `flow QUEUES FLOWS OFFLOAD GIGABITS`. Runs in a namespace of its own.
set -eu
ROUNDS=$1
SECONDS_EACH=$2
# Two pods as the plugin wires them: a /32 each, the host as next hop, packets routed between the two links.
join_pods() {
    i=1
    for pod in a b; do
        ip netns add "$pod"
        ip link add "host-$pod" numtxqueues "$1" numrxqueues "$1" mtu 9001 type veth \
            peer name eth0 netns "$pod" numtxqueues "$1" numrxqueues "$1" mtu 9001
        ip link set "host-$pod" up
        ip -n "$pod" addr add "10.250.0.$i/32" dev eth0
        ip -n "$pod" link set lo up
        ip -n "$pod" link set eth0 up
        ip -n "$pod" route add 169.254.1.1 dev eth0 scope link
        ip -n "$pod" route add default via 169.254.1.1 dev eth0 onlink
        mac=$(ip -o link show "host-$pod" | sed 's/.*ether \([0-9a-f:]*\).*/\1/')
        ip -n "$pod" neigh add 169.254.1.1 lladdr "$mac" dev eth0 nud permanent
        ip route add "10.250.0.$i" dev "host-$pod"
        if [ "$2" = gro ]; then
            ethtool -K "host-$pod" gro on
            ip netns exec "$pod" ethtool -K eth0 gro on
        fi
        i=$((i + 1))
    done
}

part_pods() {
    for pod in a b; do
        ip link del "host-$pod"
        ip netns del "$pod"
    done
}

through() {
    ip netns exec b iperf3 --server --one-off --daemon
    ip netns exec a iperf3 --client 10.250.0.2 --connect-timeout 5000 --parallel "$2" --time "$SECONDS_EACH" --json |
        sed -n '/"sum_received"/,/}/s/.*"bits_per_second":[[:space:]]*\([0-9.e+]*\).*/\1/p' |
        sed "s/^/flow $1 $2 $3 /"
}

echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
# The host answers for its next-hop address from some address of its own.
ip addr add 10.250.1.1/32 dev lo
batch=$(mktemp)
for _ in $(seq "$ROUNDS"); do
    for queues in 1 2 16 96 192; do
        for i in $(seq 100); do
            echo "link add h$i group 250 numtxqueues $queues numrxqueues $queues mtu 9001 type veth" \
                "peer name p$i group 250 numtxqueues $queues numrxqueues $queues mtu 9001"
        done >"$batch"
        begin=$(date +%s%N)
        ip -batch "$batch"
        echo "create $queues $((($(date +%s%N) - begin) / 100000))"
        ip link del group 250
    done
    for offload in plain gro; do
        for queues in 1 16; do
            for flows in 1 8; do
                join_pods "$queues" "$offload"
                through "$queues" "$flows" "$offload"
                part_pods
            done
        done
    done
done
rm -f "$batch"
