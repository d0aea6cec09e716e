"""The search attributes that `holdfast bootstrap` registers; all are keywords and carry references only."""

from temporalio.common import SearchAttributeKey

TENANT = SearchAttributeKey.for_keyword("Tenant")
JOB_TYPE = SearchAttributeKey.for_keyword("JobType")
JOB_STATUS = SearchAttributeKey.for_keyword("JobStatus")  # `parked`, or absent: one upsert more per job costs latency
CAUSE = SearchAttributeKey.for_keyword("Cause")  # `<step>:<code>` of a parked job
PROVIDER = SearchAttributeKey.for_keyword("Provider")

ALL = (TENANT, JOB_TYPE, JOB_STATUS, CAUSE, PROVIDER)
