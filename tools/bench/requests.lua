-- wrk's side of the bench: sends the requests of a file in turn (see small.py), and says how it went in one line.
-- Usage: wrk -s requests.lua URL -- FILE

local requests = {}
local at = 0

function init(args)
   local file = assert(io.open(args[1], "rb"))
   while true do
      local length = file:read(8)
      if not length then break end
      requests[#requests + 1] = file:read(tonumber(length))
   end
   file:close()
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local errors = summary.errors
   print(string.format(
      'RESULT {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "error_status": %d, ' ..
      '"error_connect": %d, "error_read": %d, "error_write": %d, "error_timeout": %d}',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
      errors.connect, errors.read, errors.write, errors.timeout))
end
