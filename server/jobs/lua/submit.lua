-- KEYS[7] idempotency key, KEYS[8] the tenant's jobs, KEYS[9] the tenant's storage, KEYS[10..] the model's queues.
-- Arguments: id, model, tenant, fields (of the job, by name), work (row-steps), deadline_ms (after now, 0 is none),
-- depth (most jobs), share (most jobs of that tenant), space (most bytes that it may keep), output_bytes (that the job will
-- write), fingerprint ('' is none), idempotency_ms, is_served (false: nobody takes a new job), aging_ms.
-- Bytes: the source picture, '' is none. Repeating a call with the same job id changes nothing.
-- Returns {'accepted', place...} | {'replayed', place..., id} | {'conflict'} | {'unserved'} |
-- {'full', jobs, row-steps that are left of all} | {'share', jobs of the tenant, row-steps that are left of all} |
-- {'storage', bytes that the tenant keeps, ms until enough of it has expired or -1, row-steps that are left of all}.
-- A place is what place_of returns.
local RECORD_BYTES = 8192 -- of a job's hash and its log, beside the fields
local known_request, own_jobs, storage, source = KEYS[7], KEYS[8], KEYS[9], ARGV[2]
local id, deadline = args.id, args.deadline_ms
if redis.call('EXISTS', key.job) == 1 then
  return {'accepted', unpack(place_of(id, args.aging_ms))}
end
if args.fingerprint ~= '' then
  local known = redis.call('HMGET', known_request, 'fingerprint', 'job')
  if known[1] and known[1] ~= args.fingerprint then
    return {'conflict'}
  elseif known[1] then
    local place = place_of(known[2], args.aging_ms)
    return {'replayed', place[1], place[2], place[3], place[4], known[2]}
  end
end
if not args.is_served then
  return {'unserved'}
end
local queues = {unpack(KEYS, 10)}
local jobs = 0
for _, queue in ipairs(queues) do
  jobs = jobs + redis.call('XLEN', queue)
end
if jobs >= args.depth then
  return {'full', jobs, work_left(queues)}
end
if redis.call('SCARD', own_jobs) >= args.share then
  -- Before a tenant is refused for jobs that somebody deleted by hand, or that an earlier worker ended.
  for _, own in ipairs(redis.call('SMEMBERS', own_jobs)) do
    local state = redis.call('HGET', job_key(own), 'state')
    if not state or is_terminal(state) then
      redis.call('SREM', own_jobs, own)
    end
  end
end
local own = redis.call('SCARD', own_jobs)
if own >= args.share then
  return {'share', own, work_left(queues)}
end
local need = RECORD_BYTES + args.output_bytes + #source + #args.model
local fields = {}
for name, value in pairs(args.fields) do
  fields[#fields + 1] = name
  fields[#fields + 1] = value
  need = need + #name + #value
end
if stored(storage) + need > args.space then
  recount_active(storage, args.model, own_jobs)
end
local kept = stored(storage)
-- Whoever keeps nothing may have one job, however large.
if kept > 0 and kept + need > args.space then
  return {'storage', kept, time_until_expired(storage, kept + need - args.space), work_left(queues)}
end
redis.call('HSET', key.job, unpack(fields))
local entry = redis.call('XADD', key.queue, '*', 'job', id, 'work', args.work)
redis.call('HSET', key.job, 'id', id, 'work', args.work, 'tenant', args.tenant, 'share', own_jobs, 'state', 'queued',
  'entry', entry, 'created', now, 'deadline', deadline > 0 and now + deadline or 0)
redis.call('SADD', own_jobs, id)
if source ~= '' then
  redis.call('SET', field('source'), source)
end
append('queued', '{}')
charge_active(storage, args.model, args.output_bytes)
if deadline > 0 then
  redis.call('ZADD', key.due, now + deadline, id)
end
if args.fingerprint ~= '' then
  redis.call('HSET', known_request, 'fingerprint', args.fingerprint, 'job', id)
  redis.call('PEXPIRE', known_request, args.idempotency_ms)
  charge_for(storage, args.idempotency_ms, bytes_of(known_request))
end
return {'accepted', unpack(place_of(id, args.aging_ms))}
