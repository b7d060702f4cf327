//! What to run in a node: program, arguments, environment, streams. Values only, until `prepare` opens the files.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::NodeError;
use super::child::PreparedCommand;

/// Where one standard stream goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Stream {
    /// /dev/null. The default: a daemon that inherits a stream keeps its reader waiting for ever.
    #[default]
    Null,
    /// That of the calling process.
    Inherit,
    /// Appended to this file, opened in the *caller's* mount namespace.
    AppendTo(PathBuf),
    /// A pipe, see [`NodeChild::communicate`](super::NodeChild::communicate).
    Pipe,
}

/// A program to run: absolute path (as the node sees it), arguments, environment, streams.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    program: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    stdin: Stream,
    stdout: Stream,
    stderr: Stream,
}

impl CommandSpec {
    /// No arguments, an environment that holds only a usual PATH, working directory `/`, all streams /dev/null.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let path = OsString::from("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::from([("PATH".into(), path)]),
            directory: "/".into(),
            stdin: Stream::Null,
            stdout: Stream::Null,
            stderr: Stream::Null,
        }
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets variables.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(mut self, vars: impl IntoIterator<Item = (N, V)>) -> Self {
        let vars = vars
            .into_iter()
            .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()));
        self.env.extend(vars);
        self
    }

    /// Working directory, as the node sees it.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Where stdin comes from.
    #[must_use]
    pub fn stdin(mut self, stream: Stream) -> Self {
        self.stdin = stream;
        self
    }

    /// Where stdout goes.
    #[must_use]
    pub fn stdout(mut self, stream: Stream) -> Self {
        self.stdout = stream;
        self
    }

    /// Where stderr goes.
    #[must_use]
    pub fn stderr(mut self, stream: Stream) -> Self {
        self.stderr = stream;
        self
    }

    /// Stdout and stderr appended to one file.
    #[must_use]
    pub fn log_to(self, file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        self.stdout(Stream::AppendTo(file.clone()))
            .stderr(Stream::AppendTo(file))
    }

    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn prepare(&self) -> Result<PreparedCommand, NodeError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.directory);
        command
            .stdin(stdio(&self.stdin)?)
            .stdout(stdio(&self.stdout)?)
            .stderr(stdio(&self.stderr)?);
        Ok(PreparedCommand {
            program: self.program.display().to_string(),
            command,
        })
    }
}

fn stdio(stream: &Stream) -> Result<Stdio, NodeError> {
    Ok(match stream {
        Stream::Null => Stdio::null(),
        Stream::Inherit => Stdio::inherit(),
        Stream::Pipe => Stdio::piped(),
        Stream::AppendTo(path) => {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|source| NodeError::Write {
                path: path.display().to_string(),
                source,
            })?
            .into()
        }
    })
}
