"""A running vpc-sim, for the suites: EC2's API and the Kubernetes API on free ports of the loopback."""

import json
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request


class Sim:
    """Started with a configuration, ended by `end`. Its socket for `ctl` is named by a directory that it never writes to."""

    def __init__(self, program, directory, config, *options):
        self.program = program
        self.state_dir = directory / "state"
        file = directory / "config.json"
        file.write_text(json.dumps(config))
        command = [program, *options, "--config", file, "--state-dir", self.state_dir]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{program} did not start: status {self.process.wait(timeout=10)}")
        self.ready = json.loads(line)
        self.url = self.ready["ec2"]

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def run(self, *arguments):
        """A command of vpc-sim for this one."""
        first, *rest = arguments
        command = [self.program, first, "--state-dir", self.state_dir, *map(str, rest)]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def ctl(self, *arguments):
        """`vpc-sim ctl`: look into it, or make things go wrong."""
        done = self.run("ctl", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def instance(self, name):
        return next(node["instance"] for node in self.ready["nodes"] if node["name"] == name)

    def raw(self, **parameters):
        """A request to EC2 that no SDK would send; status and body."""
        form = urllib.parse.urlencode({"Version": "2016-11-15", **parameters}).encode()
        try:
            with urllib.request.urlopen(self.url, data=form, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
