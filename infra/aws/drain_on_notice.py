"""Runs `ray start --block` on a spot instance until AWS says that it takes the instance back.

    python drain_on_notice.py ray start --address=HEAD:6379 --block

AWS says so two minutes before, at the instance's metadata service, and to nobody else. Ray is then
sent SIGTERM, at which it tells the cluster that this node goes, takes no new work, and hands over
for RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S what it can. A node that got no notice is just lost.
"""

import os
import subprocess
import sys
import urllib.request

# the variable by which AWS's own tools find the service
_SERVICE = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
_EVERY_SECONDS = 5.0
_ANSWERS_WITHIN = 2.0


def _ask(path: str, method: str, headers: dict[str, str]) -> str:
    """What the metadata service answers; it is on this host, and no proxy leads there."""
    request = urllib.request.Request(f"{_SERVICE}/latest/{path}", method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_ANSWERS_WITHIN) as answer:
        return answer.read().decode()


def _taken_back() -> bool:
    """Whether there is a notice; a service that does not answer has given none."""
    try:
        token = _ask("api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        _ask("meta-data/spot/instance-action", "GET", {"X-aws-ec2-metadata-token": token})
    except OSError:
        # 404 as long as nobody wants the instance
        return False
    return True


def main(command: list[str]) -> int:
    """Run the command, end it at a notice, and return its exit code."""
    running = subprocess.Popen(command)
    while True:
        try:
            return running.wait(timeout=_EVERY_SECONDS)
        except subprocess.TimeoutExpired:
            if _taken_back():
                print("AWS takes this instance back: draining", flush=True)
                running.terminate()
                return running.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
