"""Who is told of what needs a person: failures, ageing data, lost jobs, and changes of the champion."""
