"""What a process on this machine answers over HTTP."""

import http.client


def asked(port: int, path: str, method: str = "GET", timeout_s: float = 30) -> tuple[int, str]:
    """Status and text of an answer; status 0 when there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
