-- KEYS[7] idempotency key, KEYS[8] the tenant's jobs, KEYS[9] the tenant's storage, KEYS[10..] the model's queues.
-- ARGV: job id, depth limit, deadline after ms, fingerprint ('' is none), its ttl ms, group, work, tenant, most jobs of
-- that tenant, most bytes that it may keep, bytes that the job will write, source picture ('' is none), model, then the
-- job's fields in pairs. Repeating a call with the same job id changes nothing.
-- Returns {'accepted'} | {'replayed', id} | {'conflict', id} | {'full', jobs, row-steps that are left of all} |
-- {'share', jobs of the tenant, row-steps that are left of all} |
-- {'storage', bytes that the tenant keeps, ms until enough of it has expired or -1, row-steps that are left of all}.
local RECORD_BYTES = 8192 -- of a job's hash and its log, beside the fields
local id, depth, deadline, fingerprint = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local share = tonumber(ARGV[9])
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'accepted'}
end
if fingerprint ~= '' then
  local known = redis.call('HMGET', KEYS[7], 'fingerprint', 'job')
  if known[1] then
    return {known[1] == fingerprint and 'replayed' or 'conflict', known[2]}
  end
end
local queues = {unpack(KEYS, 10)}
local jobs = 0
for _, queue in ipairs(queues) do
  jobs = jobs + redis.call('XLEN', queue)
end
if jobs >= depth then
  return {'full', jobs, work_left(queues, ARGV[6])}
end
if redis.call('SCARD', KEYS[8]) >= share then
  -- Before a tenant is refused for jobs that somebody deleted by hand, or that a worker of before ended.
  for _, own in ipairs(redis.call('SMEMBERS', KEYS[8])) do
    local state = redis.call('HGET', 'job:' .. own, 'state')
    if not state or is_terminal(state) then
      redis.call('SREM', KEYS[8], own)
    end
  end
end
local own = redis.call('SCARD', KEYS[8])
if own >= share then
  return {'share', own, work_left(queues, ARGV[6])}
end
local room, model, need = tonumber(ARGV[10]), ARGV[13], RECORD_BYTES + ARGV[11]
for i = 12, #ARGV do
  need = need + #ARGV[i]
end
if stored(KEYS[9]) + need > room then
  recount_active(KEYS[9], model, KEYS[8])
end
local kept = stored(KEYS[9])
-- Whoever keeps nothing may have one job, however large.
if kept > 0 and kept + need > room then
  return {'storage', kept, time_until_expired(KEYS[9], kept + need - room), work_left(queues, ARGV[6])}
end
redis.call('HSET', KEYS[1], unpack(ARGV, 14))
local entry = redis.call('XADD', KEYS[3], '*', 'job', id, 'work', ARGV[7])
redis.call('HSET', KEYS[1], 'id', id, 'work', ARGV[7], 'tenant', ARGV[8], 'share', KEYS[8], 'state', 'queued',
  'entry', entry, 'created', now, 'deadline', deadline > 0 and now + deadline or 0)
redis.call('SADD', KEYS[8], id)
if ARGV[12] ~= '' then
  redis.call('SET', field('source'), ARGV[12])
end
append('queued', '{}')
charge_active(KEYS[9], model, tonumber(ARGV[11]))
if deadline > 0 then
  redis.call('ZADD', KEYS[6], now + deadline, id)
end
if fingerprint ~= '' then
  redis.call('HSET', KEYS[7], 'fingerprint', fingerprint, 'job', id)
  redis.call('PEXPIRE', KEYS[7], ARGV[5])
  charge_for(KEYS[9], tonumber(ARGV[5]), bytes_of(KEYS[7]))
end
return {'accepted'}
