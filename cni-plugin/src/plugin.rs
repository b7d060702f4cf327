//! One call: which verb, whether it may run, and what is answered.

use std::io;

use cni_spec::version::{version_list, version_output};
use cni_spec::{
    AttachmentVerb, CniError, CniVersion, Document, EnvError, ErrorCode, Invocation, NetConf, NodeVerb, Sandbox,
};

use crate::attachment::Attachment;
use crate::clock::Deadline;
use crate::network::Network;
use crate::settings::Settings;
use crate::{add, check, del, garbage, status};

/// How a call ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Success without output.
    Silent,
    /// Success; the text belongs on standard output.
    Answer(String),
    /// Started by a person; the text belongs on standard error.
    About(String),
    /// Failure; the object belongs on standard output.
    Failure(CniError),
}

/// Runs the call that the environment describes. `lookup` reads a variable; `read_config` is called at most once.
pub fn run(lookup: impl Fn(&str) -> Option<String>, read_config: impl FnOnce() -> io::Result<Vec<u8>>) -> Outcome {
    let outcome = match Invocation::from_env(&lookup) {
        Ok(Invocation::Version) => Ok(Outcome::Answer(version_output())),
        Ok(Invocation::Node(verb)) => node(verb, &lookup, read_config),
        Ok(Invocation::Attachment(verb, sandbox)) => attachment(verb, &sandbox, &lookup, read_config),
        Err(EnvError::NoCommand) => Ok(Outcome::About(about())),
        Err(error) => Err(error.into()),
    };
    outcome.unwrap_or_else(Outcome::Failure)
}

fn about() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "aws-cni {version}: a CNI plugin, started by container runtimes\nCNI protocol versions supported: {}",
        version_list()
    )
}

fn document(read_config: impl FnOnce() -> io::Result<Vec<u8>>) -> Result<Document, CniError> {
    let text = read_config().map_err(|error| {
        CniError::new(
            ErrorCode::Io,
            format!("read the network configuration from stdin: {error}"),
        )
    })?;
    Ok(Document::parse(&text)?)
}

fn node(
    verb: NodeVerb,
    lookup: impl Fn(&str) -> Option<String>,
    read_config: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<Outcome, CniError> {
    let settings = Settings::from_env(lookup)?;
    let (status_by, gc_by) = (
        Deadline::after(status::DEADLINE),
        Deadline::after(settings.add_deadline),
    );
    let document = document(read_config)?;
    match verb {
        NodeVerb::Status => {
            document.version().allow("STATUS", CniVersion::V1_1_0)?;
            let network = Network::new("STATUS", NetConf::from_document(document)?, &settings.paths, status_by);
            network.logged(status::status(&network))?;
        }
        NodeVerb::Gc => {
            document.version().allow("GC", CniVersion::V1_1_0)?;
            let valid = document.valid_attachments()?;
            let network = Network::new("GC", NetConf::from_document(document)?, &settings.paths, gc_by);
            network.logged(garbage::collect(&network, &valid))?;
        }
    }
    Ok(Outcome::Silent)
}

fn attachment(
    verb: AttachmentVerb,
    sandbox: &Sandbox,
    lookup: impl Fn(&str) -> Option<String>,
    read_config: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<Outcome, CniError> {
    let settings = Settings::from_env(lookup)?;
    // The time runs from here: reading the configuration is the first thing that can take long.
    let (add_by, del_by) = (
        Deadline::after(settings.add_deadline),
        Deadline::after(settings.del_deadline),
    );
    let document = document(read_config)?;
    let attach = |name, conf, deadline| Attachment::new(name, sandbox, conf, &settings.paths, deadline);
    match verb {
        AttachmentVerb::Check => {
            document.version().allow("CHECK", CniVersion::V0_4_0)?;
            let attachment = attach("CHECK", NetConf::from_document(document)?, del_by)?;
            logged(&attachment, check::check(&attachment, sandbox)).map(|()| Outcome::Silent)
        }
        AttachmentVerb::Add => {
            let attachment = attach("ADD", NetConf::from_document(document)?, add_by)?;
            logged(&attachment, add::add(&attachment, sandbox)).map(Outcome::Answer)
        }
        AttachmentVerb::Del => {
            let attachment = attach("DEL", NetConf::from_document(document)?, del_by)?;
            logged(&attachment, del::del(&attachment, sandbox)).map(|()| Outcome::Silent)
        }
    }
}

/// Every failure is in the log, too: the runtime's events are gone after an hour.
fn logged<T>(attachment: &Attachment, outcome: Result<T, CniError>) -> Result<T, CniError> {
    outcome.inspect_err(|error| attachment.log.error("failed", &[("error", error)]))
}
