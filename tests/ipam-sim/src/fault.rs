//! The kinds of trouble that a run may have, and what makes a node unusual. What each of them does is in the module that it befalls.

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident $text:literal),* $(,)?) => {
        /// A kind of thing that goes wrong. Each can be switched off by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in tables and options.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

faults! {
    /// The node may have prefixes.
    PrefixMode "prefix-mode",
    /// A slot is kept for a trunk.
    TrunkReserved "trunk-reserved",
    /// There are more subnets, with tags; tags on the primary one too.
    ManySubnets "many-subnets",
    /// New ENIs go where an operator says.
    CustomNetworking "custom-networking",
    /// Changes at EC2 are forbidden, or only IMDS may be read.
    OtherProvisioning "other-provisioning",
    /// Single addresses of others are all over the subnet, and stay.
    ForeverFragmented "forever-fragmented",
    /// Others' left-over ENIs are looked for.
    LeakSweep "leak-sweep",
    /// The kubelet admits fewer pods than the node has room for.
    MaxPods "max-pods",
    /// EC2 refuses for its request limit.
    Throttled "throttled",
    /// EC2 answers 503, or cannot be reached.
    Unavailable "unavailable",
    /// EC2 answers 500, with or without effect.
    ServerError "server-error",
    /// The request never arrives and no answer comes.
    LostRequest "lost-request",
    /// The request takes effect, the answer is lost.
    LostAnswer "lost-answer",
    /// The request takes effect late, the answer is lost.
    LateEffect "late-effect",
    /// The answer takes seconds.
    SlowAnswer "slow-answer",
    /// A list of the instance's ENIs lacks one, once in a while.
    ShortView "short-view",
    /// An answer, or a view, comes a second time later.
    RepeatedAnswer "repeated-answer",
    /// A permission is missing for a while.
    Denied "denied",
    /// The permission for one kind of call is missing for a while.
    DeniedCall "denied-call",
    /// One kind of call is throttled nearly always, for a while.
    ThrottleStorm "throttle-storm",
    /// EC2 refuses for a limit that the table does not know.
    LimitReached "limit-reached",
    /// Others take the subnet's free addresses for a while.
    SubnetFull "subnet-full",
    /// Others take single addresses all over the subnet: no block is left for a prefix.
    SubnetFragmented "subnet-fragmented",
    /// Devices appear late.
    SlowAttach "slow-attach",
    /// EC2 stays at attaching for many minutes.
    StuckAttach "stuck-attach",
    /// EC2 says attached, and the device comes up much later.
    LinkLate "link-late",
    /// The daemon dies at a random moment.
    Crash "crash",
    /// The daemon dies between two actions of one event.
    CrashBetweenActions "crash-between-actions",
    /// The daemon dies between the two files of a checkpoint.
    CrashBetweenFiles "crash-between-files",
    /// Checkpoints cannot be written for a while.
    WriteFailure "write-failure",
    /// Checkpoints cannot be written for a long time.
    DiskFull "disk-full",
    /// The node's clock is set forth or back.
    ClockJump "clock-jump",
    /// A plugin is killed.
    PluginKilled "plugin-killed",
    /// A plugin stalls after the reply.
    PluginStalled "plugin-stalled",
    /// A plugin's hang-up reaches the daemon late or never.
    LateAbandon "late-abandon",
    /// A kernel dump fails, or lacks the primary device.
    KernelViewFailure "kernel-view-failure",
    /// The kernel cannot be dumped for a while.
    KernelBlind "kernel-blind",
    /// A change in the kernel is refused.
    KernelRefusal "kernel-refusal",
    /// A sandbox dies without DEL.
    SandboxKilled "sandbox-killed",
    /// The node boots anew.
    Reboot "reboot",
    /// The side file is lost while the daemon is down.
    SideFileLost "side-file-lost",
    /// The side file is damaged while the daemon is down.
    SideFileDamaged "side-file-damaged",
    /// The reference daemon serves the node for a while.
    ReferenceRan "reference-ran",
    /// `ipam.json` is damaged while the daemon is down.
    FilesDamaged "files-damaged",
    /// Somebody else changes our ENIs.
    ForeignEdit "foreign-edit",
    /// The daemon starts with other settings than before.
    Reconfigured "reconfigured",
    /// The daemon starts in safe mode.
    SafeStart "safe-start",
    /// The node is cordoned, or about to end, for a while.
    Cordon "cordon",
    /// Where new ENIs go is changed, or no longer known.
    Placement "placement",
    /// IMDS does not answer for a while.
    ImdsGone "imds-gone",
    /// IMDS stops following one ENI for a while.
    ImdsStale "imds-stale",
    /// One answer of IMDS leaves something out, adds something, or is in another order.
    ImdsLies "imds-lies",
}

impl Fault {
    /// What makes a node unusual from the start.
    pub(crate) const UNUSUAL: &[Self] = &[
        Self::PrefixMode,
        Self::TrunkReserved,
        Self::ManySubnets,
        Self::CustomNetworking,
        Self::OtherProvisioning,
        Self::ForeverFragmented,
        Self::LeakSweep,
        Self::MaxPods,
    ];

    /// Runs that have it, per mille. What leaves the truth in doubt is rarer, so that the rest can be judged.
    pub(crate) fn share(self) -> u32 {
        const RARE: &[(Fault, u32)] = &[
            (Fault::ForeignEdit, 250),
            (Fault::CustomNetworking, 80),
            (Fault::ForeverFragmented, 150),
            (Fault::OtherProvisioning, 100),
            (Fault::TrunkReserved, 300),
            (Fault::Reconfigured, 300),
            (Fault::SafeStart, 300),
        ];
        let rare = RARE.iter().find(|(fault, _)| *fault == self);
        rare.map_or(550, |(_, share)| *share)
    }
}
