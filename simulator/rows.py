"""What vendors answer: one row per answer that means something of its own, with a body of the real shape."""

from dataclasses import dataclass, field
from typing import Any, Literal

Stage = Literal["connect", "mail", "rcpt", "data", "end_of_data"]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; or an SMTP reply, with its code, its text as body, and the point where it is given."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    stage: Stage = "end_of_data"


def _slack(error: str, status: int = 200, **more: Any) -> Answer:
    return Answer(status, {"ok": False, "error": error, **more})


def _fcm(status: int, name: str, message: str, code: str | None, **headers: str) -> Answer:
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}] if code else []
    error = {"code": status, "message": message, "status": name, "details": details}
    return Answer(status, {"error": error}, headers)


def _apns(status: int, reason: str, **more: Any) -> Answer:
    return Answer(status, {"reason": reason, **more})


def _mozilla(status: int, errno: int, error: str, **headers: str) -> Answer:
    body = {"code": status, "errno": errno, "error": error, "message": error, "more_info": "https://example.com"}
    return Answer(status, body, headers)


BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"

EMAIL = {
    "421 shutting down": Answer(421, "4.3.2 Service shutting down", stage="connect"),
    "421 at rcpt": Answer(421, "4.3.2 Service shutting down", stage="rcpt"),
    "421 at data": Answer(421, "Service not available, closing transmission channel", stage="data"),
    "421 after data": Answer(421, "4.4.2 Timeout", stage="end_of_data"),
    "421 too many": Answer(421, "4.7.0 Try again later, closing connection", stage="mail"),
    "450 greylisted": Answer(450, "4.7.1 Greylisted, please try again in 300 seconds", stage="rcpt"),
    "450 busy": Answer(450, "4.2.1 The user is receiving mail too quickly", stage="rcpt"),
    "451 local error": Answer(451, "4.3.0 Temporary lookup failure", stage="rcpt"),
    "451 bare": Answer(451, "Please try again later", stage="rcpt"),
    "452 mailbox full": Answer(452, "4.2.2 The recipient's mailbox is over quota", stage="rcpt"),
    "452 storage": Answer(452, "4.3.1 Insufficient system storage", stage="mail"),
    "454 auth": Answer(454, "4.7.0 Temporary authentication failure", stage="mail"),
    "455": Answer(455, "Server unable to accommodate parameters", stage="mail"),
    "4.4.1": Answer(451, "4.4.1 No answer from host", stage="end_of_data"),
    "5.1.1": Answer(550, "5.1.1 The email account that you tried to reach does not exist", stage="rcpt"),
    "5.1.2": Answer(550, "5.1.2 Bad destination system address", stage="rcpt"),
    "5.1.3": Answer(553, "5.1.3 Bad recipient address syntax", stage="rcpt"),
    "5.1.6": Answer(551, "5.1.6 Mailbox has moved", stage="rcpt"),
    "5.1.10": Answer(556, "5.1.10 Recipient address has null MX", stage="rcpt"),
    "5.2.1": Answer(550, "5.2.1 The email account is disabled", stage="rcpt"),
    "550 bare": Answer(550, "No such user here", stage="rcpt"),
    "5.2.2": Answer(552, "5.2.2 Mailbox full", stage="rcpt"),
    "552 bare quota": Answer(552, "Requested mail action aborted: exceeded storage allocation", stage="end_of_data"),
    "5.3.4": Answer(552, "5.3.4 Message size exceeds fixed limit", stage="end_of_data"),
    "552 too big": Answer(552, "Message size exceeds maximum permitted", stage="end_of_data"),
    "5.5.2": Answer(500, "5.5.2 Syntax error", stage="mail"),
    "5.6.0": Answer(554, "5.6.0 Message content rejected", stage="end_of_data"),
    "554 content": Answer(554, "Transaction failed", stage="end_of_data"),
    "500": Answer(500, "Syntax error, command unrecognized", stage="mail"),
    "501": Answer(501, "Syntax error in parameters or arguments", stage="rcpt"),
    "502": Answer(502, "Command not implemented", stage="data"),
    "503": Answer(503, "Bad sequence of commands", stage="data"),
    "504": Answer(504, "Command parameter not implemented", stage="rcpt"),
    "550 two lines": Answer(550, "5.1.1 The email account that you tried to reach\n5.1.1 does not exist", stage="rcpt"),
    "551 bare": Answer(551, "User not local; please try elsewhere", stage="rcpt"),
    "553 bare": Answer(553, "Mailbox name not allowed", stage="rcpt"),
    "553 unknown": Answer(553, "sorry, no such user here (#5.1.1)", stage="rcpt"),
    "554 no service": Answer(554, "No SMTP service here", stage="connect"),
    "555": Answer(555, "MAIL FROM/RCPT TO parameters not recognized", stage="mail"),
    "5.1.1 of the sender": Answer(550, "5.1.1 Sender address rejected: user unknown", stage="mail"),
    "5.2.2 of the sender": Answer(552, "5.2.2 Mailbox full", stage="mail"),
    "5.1.8": Answer(550, "5.1.8 Bad sender's system address", stage="mail"),
    "5.4.1 exchange": Answer(550, "5.4.1 Recipient address rejected: Access denied. [AM0EUR]", stage="rcpt"),
    "5.5.0 outlook": Answer(550, "5.5.0 Requested action not taken: mailbox unavailable", stage="rcpt"),
    "550 dns of the sender": Answer(
        550, "Requested action not taken: mailbox unavailable\ninvalid DNS MX or A/AAAA resource record", stage="rcpt"
    ),
    "552 at rcpt": Answer(552, "Requested mail action aborted", stage="rcpt"),
    "530 auth": Answer(530, "5.7.1 Authentication required", stage="mail"),
    "5.7.9 of a message": Answer(550, "5.7.9 Rejected by policy", stage="end_of_data"),
    "530 starttls": Answer(530, "5.7.0 Must issue a STARTTLS command first", stage="mail"),
    "535": Answer(535, "5.7.8 Username and Password not accepted", stage="mail"),
    "5.7.1": Answer(550, "5.7.1 Message rejected due to local policy", stage="end_of_data"),
    "5.7.23": Answer(550, "5.7.23 SPF validation failed", stage="end_of_data"),
    "5.7.25": Answer(550, "5.7.25 The IP address has no PTR record", stage="end_of_data"),
    "5.7.26": Answer(550, "5.7.26 Unauthenticated email is not accepted due to DMARC policy", stage="end_of_data"),
    "550 spam": Answer(550, "High probability of spam, message blocked", stage="end_of_data"),
}
SLACK = {
    "429": Answer(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "2"}),
    **{
        error: _slack(error)
        for error in (
            "ratelimited",
            "rate_limited",
            "message_limit_exceeded",
            "fatal_error",
            "internal_error",
            "service_unavailable",
            "request_timeout",
            "team_added_to_org",
            "org_login_required",
            "channel_not_found",
            "is_archived",
            "not_in_channel",
            "messages_tab_disabled",
            "restricted_action",
            "restricted_action_read_only_channel",
            "ekm_access_denied",
            "user_not_found",
            "account_inactive",
            "token_revoked",
            "invalid_auth",
            "not_authed",
            "app_access_restricted",
            "two_factor_setup_required",
            "token_expired",
            "no_permission",
            "not_allowed_token_type",
            "accesslimited",
            "access_denied",
            "no_text",
            "msg_blocks_too_long",
            "msg_too_long",
            "too_many_attachments",
            "metadata_too_large",
            "invalid_arg_name",
        )
    },
    "missing_scope": _slack("missing_scope", needed="chat:write", provided="channels:read"),
    "invalid_blocks": _slack("invalid_blocks", response_metadata={"messages": ["[ERROR] must be a string"]}),
    "500": Answer(500, HTML),
    "502 html": Answer(502, HTML),
    "503": Answer(503, {"ok": False, "error": "service_unavailable"}, {"Retry-After": "3"}),
}
FCM = {
    "UNREGISTERED": _fcm(404, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED"),
    "SENDER_ID_MISMATCH": _fcm(403, "PERMISSION_DENIED", "SenderId mismatch", "SENDER_ID_MISMATCH"),
    "INVALID_ARGUMENT token": _fcm(
        400,
        "INVALID_ARGUMENT",
        "The registration token is not a valid FCM registration token",
        "INVALID_ARGUMENT",
    ),
    "INVALID_ARGUMENT other": _fcm(
        400, "INVALID_ARGUMENT", "Request contains an invalid argument.", "INVALID_ARGUMENT"
    ),
    "BadRequest": Answer(
        400,
        {
            "error": {
                "code": 400,
                "message": "Invalid data payload key: from",
                "status": "INVALID_ARGUMENT",
                "details": [
                    {
                        "@type": BAD_REQUEST,
                        "fieldViolations": [{"field": "message.data", "description": "Invalid data payload key: from"}],
                    }
                ],
            }
        },
    ),
    "QUOTA_EXCEEDED": _fcm(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", "QUOTA_EXCEEDED", **{"Retry-After": "7"}),
    "QUOTA_EXCEEDED bare": _fcm(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", "QUOTA_EXCEEDED"),
    "QUOTA_EXCEEDED device": Answer(
        429,
        {
            "error": {
                "code": 429,
                "message": "Device message rate exceeded.",
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "QUOTA_EXCEEDED"},
                    {
                        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                        "violations": [{"subject": "device:abc", "description": "Device Message Rate"}],
                    },
                ],
            }
        },
    ),
    "UNAVAILABLE": _fcm(503, "UNAVAILABLE", "The service is unavailable.", "UNAVAILABLE", **{"Retry-After": "4"}),
    "INTERNAL": _fcm(500, "INTERNAL", "Internal error encountered.", "INTERNAL"),
    "THIRD_PARTY_AUTH_ERROR": _fcm(401, "UNAUTHENTICATED", "APNs certificate invalid.", "THIRD_PARTY_AUTH_ERROR"),
    "UNAUTHENTICATED": _fcm(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", None),
    "UNSPECIFIED_ERROR": _fcm(500, "UNKNOWN", "Unknown error.", "UNSPECIFIED_ERROR"),
    "502 html": Answer(502, HTML),
}
APNS = {
    "410 Unregistered": _apns(410, "Unregistered", timestamp=4_102_444_800_000),
    "410 ExpiredToken": _apns(410, "ExpiredToken", timestamp=4_102_444_800_000),
    "410 before": _apns(410, "Unregistered", timestamp=1_000_000_000_000),
    **{
        reason: _apns(400, reason)
        for reason in (
            "BadDeviceToken",
            "DeviceTokenNotForTopic",
            "TopicDisallowed",
            "BadTopic",
            "MissingTopic",
            "BadExpirationDate",
            "BadPriority",
            "BadCollapseId",
            "BadMessageId",
            "DuplicateHeaders",
            "PayloadEmpty",
            "InvalidPushType",
            "MissingDeviceToken",
            "IdleTimeout",
        )
    },
    "PayloadTooLarge": _apns(413, "PayloadTooLarge"),
    "BadPath": _apns(404, "BadPath"),
    "MethodNotAllowed": _apns(405, "MethodNotAllowed"),
    "ExpiredProviderToken": _apns(403, "ExpiredProviderToken"),
    "InvalidProviderToken": _apns(403, "InvalidProviderToken"),
    "MissingProviderToken": _apns(403, "MissingProviderToken"),
    "BadCertificate": _apns(403, "BadCertificate"),
    "BadCertificateEnvironment": _apns(403, "BadCertificateEnvironment"),
    "Forbidden": _apns(403, "Forbidden"),
    "TooManyRequests": _apns(429, "TooManyRequests"),
    "TooManyProviderTokenUpdates": _apns(429, "TooManyProviderTokenUpdates"),
    "InternalServerError": _apns(500, "InternalServerError"),
    "ServiceUnavailable": _apns(503, "ServiceUnavailable"),
    "Shutdown": _apns(503, "Shutdown"),
}
WEB_PUSH = {
    "200": Answer(200, ""),
    "202": Answer(202, ""),
    "404": _mozilla(404, 102, "Not Found"),
    "410": _mozilla(410, 106, "Gone"),
    "410 invalid": _mozilla(410, 103, "Gone"),
    "410 no subscription": _mozilla(410, 105, "Gone"),
    "400 crypto": _mozilla(400, 110, "Bad Request"),
    "400 ttl": _mozilla(400, 111, "Bad Request"),
    "400 urgency": _mozilla(400, 112, "Bad Request"),
    "400 topic": _mozilla(400, 113, "Bad Request"),
    "400 unauthorized": Answer(400, "UnauthorizedRegistration"),
    "401": _mozilla(401, 109, "Unauthorized"),
    "403": Answer(403, "the VAPID credentials do not correspond to the ones used to make the subscription"),
    "413": _mozilla(413, 104, "Payload Too Large"),
    "429": _mozilla(429, 901, "Too Many Requests", **{"Retry-After": "12.5"}),
    "500": _mozilla(500, 999, "Internal Server Error"),
    "502": Answer(502, HTML),
    "503": _mozilla(503, 201, "Service Unavailable", **{"Retry-After": "9"}),
}
WEBHOOK = {
    **{str(status): Answer(status, "") for status in (204, 400, 401, 403, 404, 408, 409, 410, 413, 425, 500, 502, 503)},
    "301": Answer(301, "", {"Location": "https://example.com/elsewhere"}),
    "429": Answer(429, "", {"Retry-After": "11"}),
    "429 bare": Answer(429, ""),
    "429 date": Answer(429, "", {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}),
}
ROWS: dict[str, dict[str, Answer]] = {
    "email": EMAIL,
    "slack": SLACK,
    "fcm": FCM,
    "apns": APNS,
    "web_push": WEB_PUSH,
    "webhook": WEBHOOK,
}
